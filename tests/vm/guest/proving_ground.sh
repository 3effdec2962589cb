# The emulated GPU and the stand-in driver, each of what they promise.
. /usr/lib/vm-host/lib.sh

expect() {
    local what=$1
    shift
    if "$@" >/tmp/out 2>&1; then echo "ok: $what"; else
        echo "NOT OK: $what ($*)"
        cat /tmp/out
        exit 1
    fi
}
refused() { ! "$@" >/tmp/refused 2>&1; }
says() { grep -qF "$1" /tmp/refused; }
gpu_driver() { [ "$(basename "$(readlink "/sys/bus/pci/devices/$1/driver")")" = "$2" ]; }
open_nodes() { exec 3</tmp/ctl 4</tmp/gpu 5</tmp/modeset 6</tmp/uvm; }
close_nodes() { exec 3<&- 4<&- 5<&- 6<&-; }
refcnt() { [ "$(cat "/sys/module/$1/refcnt")" = "$2" ]; }
# An open descriptor counts once or twice, by how the kernel reaches the module: more than before is what matters.
held() { [ "$(cat "/sys/module/$1/refcnt")" -gt "$2" ]; }
number() { awk -v name="$1" '$2 == name { print $1 }' /proc/devices; }

expect "an A100 is there" sh -c 'lspci -n -s 0001:01:00.0 | grep -q 10de:20b0'
expect "another bus of that number is refused" refused insmod "$VM_HOST/modules/emulated-gpu.ko"

expect "nvidia loads" stand_in nvidia NVreg_DeviceFileMode=432
for module in nvidia-uvm nvidia-modeset nvidia-peermem; do expect "$module loads" stand_in "$module"; done
expect "the driver is bound" gpu_driver 0001:01:00.0 nvidia
expect "version file" grep -qx 'NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.309.01  .* 20[0-9][0-9]' \
    /proc/driver/nvidia/version
expect "GCC line" grep -q '^GCC version:' /proc/driver/nvidia/version
expect "parameter as asked" grep -qx 'DeviceFileMode: 432' /proc/driver/nvidia/params
expect "GPU file" grep -q $'^Device Minor: \t 0$' /proc/driver/nvidia/gpus/0001:01:00.0/information
expect "sysfs version" grep -qx 535.309.01 /sys/module/nvidia/version
expect "major number" [ "$(number nvidia-frontend)" = 195 ]
expect "capability" grep -qx 'DeviceFileMinor: 1' /proc/driver/nvidia/capabilities/mig/config
expect "three dependents" refcnt nvidia 3

mknod /tmp/ctl c 195 255
mknod /tmp/gpu c 195 0
mknod /tmp/modeset c 195 254
mknod /tmp/uvm c "$(number nvidia-uvm)" 0
mknod /tmp/none c 195 7
expect "no GPU behind minor 7" refused cat /tmp/none
open_nodes
expect "open nodes hold nvidia" held nvidia 3
expect "an open node holds modeset" held nvidia_modeset 0
expect "a held module stays" refused rmmod nvidia-uvm
expect "and says so" says "in use"
close_nodes
expect "closed nodes let go" refcnt nvidia 3
expect "firmware was asked for" sh -c 'dmesg | grep -q "nvidia/535.309.01/gsp_tu10x.bin"'

expect "unplugged with the driver bound" unplug_gpu
expect "the function is gone" sh -c '! lspci -n | grep -q 10de:'
expect "its files too" sh -c '! ls /proc/driver/nvidia/gpus | grep .'
for module in nvidia-peermem nvidia-modeset nvidia-uvm nvidia; do expect "$module unloads" rmmod "$module"; done
expect "without a GPU it refuses" refused stand_in nvidia
expect "as the real one" says "No such device"

for chip in k80 v100 t4 a40 h100 b200; do
    expect "$chip at 0000:40" plug_gpu "$chip" 0:40
    expect "$chip seen" [ "$(cat /sys/bus/pci/devices/0000:40:00.0/vendor)" = 0x10de ]
    expect "$chip unplugged" unplug_gpu
done
expect "an unknown chip is refused" refused plug_gpu z80

expect "plugged in again" plug_gpu
expect "init fails with ENOMEM" refused stand_in nvidia fail_init=12
expect "and says so" says "Cannot allocate memory"
expect "nothing is left of it" [ ! -e /proc/driver/nvidia ]
stand_in nvidia hang_init=8 &
hanging=$!
expect "init sleeps uninterruptibly" wait_for 6 sh -c 'grep -q "^State:.*D" /proc/$(pidof insmod)/status'
kill -KILL "$(pidof insmod)"
expect "not even SIGKILL ends it" sh -c 'sleep 1; pidof insmod'
wait "$hanging"
expect "loaded after all" rmmod nvidia
echo done
