# cycle.sh RUNTIME: the whole life of the driver container with NVIDIA's real modules, seen from the host.
# /images/driver: the image's root; /mnt/modules: modules built before.
. /mnt/guest/scenario.sh
set_folder=/mnt/modules/$(uname -r)/$driver-proprietary
gpu=0001:01:00.0

loaded_build_id() { tail -c 20 "/sys/module/$1/notes/.note.gnu.build-id" | od -An -tx1 | tr -d ' \n'; }
file_build_id() { python3 -c 'import json,sys; print(json.load(open(sys.argv[1]))["modules"][sys.argv[2]]["build_id"])' "$set_folder/manifest.json" "$1"; }
same_build() { [ "$(loaded_build_id "${1//-/_}")" = "$(file_build_id "$1")" ]; }
# Debian's 6.1 says so when it finds a firmware file; later kernels only say when they do not.
firmware_resolved() {
    case $(uname -r) in
    6.1.*) dmesg | grep "direct-loading firmware nvidia/$driver/gsp" ;;
    *) dmesg | grep RmInitAdapter && ! dmesg | grep "Direct firmware load for nvidia/" ;;
    esac
}

set_up "$1" /images/driver
common+=(-v /mnt/modules:/opt/driverctr/modules:ro -v /run/mellanox:/run/mellanox:rslave)
mkdir -p /tmp/drivers /tmp/secret /tmp/firmware
echo 'NVreg_EnableStreamMemOPs=1' >/tmp/drivers/nvidia.conf
echo 'uvm_debug_prints=1' >/tmp/drivers/nvidia-uvm.conf
echo token >/tmp/secret/token

tell "== an older driver is loaded; the real one takes its place"
stand_in nvidia
stand_in nvidia-uvm
start first -v /tmp/drivers:/drivers:ro -v /tmp/secret:/run/secrets:ro -e VERIFY_DEPTH=devices -- nvidia-driver init
check "ready" wait_for 240 ready
container "$runtime" logs first 2>&1 | tail -n 60
tell "ready"
for module in nvidia nvidia-uvm nvidia-modeset; do
    check "$module in the kernel is the very build of our file" same_build "$module"
done
check "version in sysfs" is "$(cat /sys/module/nvidia/version)" $driver
check "version in procfs" grep -F " $driver " /proc/driver/nvidia/version
check "the GPU is bound to nvidia" is "$(basename "$(readlink /sys/bus/pci/devices/$gpu/driver)")" nvidia
check "the GPU in procfs" test -e "/proc/driver/nvidia/gpus/$gpu/information"
check "the driver root is mounted once" is "$(awk '$5 == "/run/nvidia/driver"' /proc/self/mountinfo | wc -l)" 1
check "the driver root holds no /run/nvidia" is "$(find /run/nvidia/driver/run/nvidia -mindepth 1 2>/dev/null | wc -l)" 0
check "proc, sys and dev are in it" test -e /run/nvidia/driver/proc/1 -a -e /run/nvidia/driver/sys/bus/pci -a -e /run/nvidia/driver/dev/null
check "module sources are in it" test -d /run/nvidia/driver/usr/src/nvidia-$driver
check "the user's settings are not" absent /run/nvidia/driver/drivers/nvidia.conf
check "secrets are not" absent /run/nvidia/driver/run/secrets/token
check "secrets are not, by the other name" absent /run/nvidia/driver/var/run/secrets/token
check "daemons' marker" is "$(cat /run/nvidia/validations/.driver-daemons-status)" Ready
printf 'GDRCOPY_ENABLED: false\nGDS_ENABLED: false\nGPU_DIRECT_RDMA_ENABLED: false\n' >/tmp/wanted
check "container's marker" cmp /tmp/wanted /run/nvidia/validations/.driver-ctr-ready
check "parameter of nvidia" grep -x 'EnableStreamMemOPs: 1' /proc/driver/nvidia/params
check "parameter of nvidia-uvm" is "$(cat /sys/module/nvidia_uvm/parameters/uvm_debug_prints)" 1
check "the firmware request was resolved" firmware_resolved
check "nvidiactl" is "$(stat -c '%t:%T' /run/nvidia/driver/dev/nvidiactl)" c3:ff
check "nvidia0" is "$(stat -c '%t:%T' /run/nvidia/driver/dev/nvidia0)" c3:0
uvm=$(awk '$2 == "nvidia-uvm" {printf "%x", $1}' /proc/devices)
check "nvidia-uvm" is "$(stat -c '%t:%T' /run/nvidia/driver/dev/nvidia-uvm)" "$uvm:0"
check "nvidia-uvm-tools" is "$(stat -c '%t:%T' /run/nvidia/driver/dev/nvidia-uvm-tools)" "$uvm:1"
check "nvidia-modeset" is "$(stat -c '%t:%T' /run/nvidia/driver/dev/nvidia-modeset)" c3:fe
check "capabilities" test -c /run/nvidia/driver/dev/nvidia-caps/nvidia-cap1
check "modprobe in a chroot" chroot /run/nvidia/driver modprobe nvidia-uvm
check "ldconfig in a chroot" sh -c "chroot /run/nvidia/driver ldconfig -p | grep libcuda.so.1"
LD_PRELOAD=/run/nvidia/driver/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1 /run/nvidia/driver/usr/bin/nvidia-smi
check "nvidia-smi from outside finds the driver, and no GPU that works" is $? 6
mkdir -p /run/mellanox/drivers && mount -t tmpfs mofed /run/mellanox/drivers && touch /run/mellanox/drivers/.driver-ready
check "a mount made later on the host arrives" container "$runtime" exec first test -e /run/mellanox/drivers/.driver-ready
umount /run/mellanox/drivers
check "status" container "$runtime" exec first driverctr status
check "the lock is a flock" fails flock --nonblock /run/nvidia/nvidia-driver.pid true
pid=$(cat /run/nvidia/nvidia-driver.pid)
check "the pid is the driver's" grep -a nvidia-driver "/proc/$pid/cmdline"
start second -e VERIFY_DEPTH=devices -- nvidia-driver init
check "a second instance is refused with its own exit status" is "$(exit_of second)" 4
check "and told who holds the lock" said second "$pid"
check "the pid file is as it was" is "$(cat /run/nvidia/nvidia-driver.pid)" "$pid"
daemon=$(pgrep nvidia-persiste)
kill -KILL "$daemon"
check "a daemon that died is started again" wait_for 30 sh -c "pgrep nvidia-persiste && grep -x Ready /run/nvidia/validations/.driver-daemons-status"
tell "stop"
container "$runtime" stop --time 30 first >/dev/null
tell "stopped"
check "a clean stop exits 0" is "$(exit_of first)" 0
nothing_left

tell "== in use at the stop: what runs goes on"
start busy -e VERIFY_DEPTH=devices -- nvidia-driver init
check "ready again" wait_for 240 ready
sleep 7531 </run/nvidia/driver/dev/nvidiactl &
user=$!
container "$runtime" stop --time 30 busy >/dev/null
check "the exit status says in use" is "$(exit_of busy)" 6
check "the log names the process" said busy "pid $user (sleep 7531)"
check "modules stay" test -e /sys/module/nvidia_uvm/refcnt
check "the driver root stays" test -e /run/nvidia/driver/usr/bin/nvidia-smi
check "the firmware search path stays" is "$(cat /sys/module/firmware_class/parameters/path)" /run/nvidia/driver/lib/firmware
check "no marker stays" is "$(find /run/nvidia/validations -type f | wc -l)" 0
start taken -e VERIFY_DEPTH=devices -- nvidia-driver init
check "the next start takes the driver over" wait_for 240 ready
check "as it is" said taken "keep the modules that are loaded"
check "the plan says by whom it is used" said taken "pid $user (sleep 7531)"
check "who uses it goes on" kill -0 $user
container "$runtime" stop --time 30 taken >/dev/null
check "and its stop too says in use" is "$(exit_of taken)" 6
kill $user
wait $user
start cleaner -- driverctr unload
check "unload takes away what is left" is "$(exit_of cleaner)" 0
container "$runtime" logs cleaner
nothing_left

tell "== the operator's mount over /lib/firmware, and the check by nvidia-smi"
dmesg -C
mkdir -p /run/nvidia/driver/lib/firmware
: >/tmp/termination
start smi -v /run/nvidia/driver/lib/firmware:/lib/firmware -v /tmp/termination:/dev/termination-log -- nvidia-driver init
check "no GPU that works: its own exit status" is "$(exit_of smi)" 31
container "$runtime" logs smi 2>&1 | tail -n 40
check "the log says it in words" said smi "the driver is loaded, but no GPU could be initialised"
check "the firmware request was resolved" firmware_resolved
check "the termination message" python3 -c 'import json; assert json.load(open("/tmp/termination"))["code"] == "gpu-init-failed"'
check "never said to be ready" fails ready
check "no module of the driver is loaded" fails grep -E '^nvidia' /proc/modules
check "nothing is mounted at the driver root" is "$(awk '$5 ~ "^/run/nvidia/driver"' /proc/self/mountinfo | wc -l)" 0
finish
