# image_cycle.sh RUNTIME LIBRARIES: the life of another distribution's image, in short: brought up with NVIDIA's real
# modules, checked from the host, stopped. /images/driver: the image's root; LIBRARIES: where it has the driver's, below
# the root; /mnt/modules: modules built before.
. /mnt/guest/scenario.sh
libraries=$2
gpu=0001:01:00.0

set_up "$1" /images/driver
common+=(-v /mnt/modules:/opt/driverctr/modules:ro)

tell "== $(sed -n 's/^PRETTY_NAME=//p' /images/driver/etc/os-release)"
start first -e VERIFY_DEPTH=devices -- nvidia-driver init
check "ready" wait_for 300 ready
container "$runtime" logs first 2>&1 | tail -n 60
for module in nvidia nvidia-uvm nvidia-modeset; do
    check "$module is loaded" test -e "/sys/module/${module//-/_}/refcnt"
done
check "version in procfs" grep -F " $driver " /proc/driver/nvidia/version
check "the GPU is bound to nvidia" is "$(basename "$(readlink /sys/bus/pci/devices/$gpu/driver)")" nvidia
check "the driver root is mounted once" is "$(awk '$5 == "/run/nvidia/driver"' /proc/self/mountinfo | wc -l)" 1
check "daemons' marker" is "$(cat /run/nvidia/validations/.driver-daemons-status)" Ready
check "nvidia0" is "$(stat -c '%t:%T' /run/nvidia/driver/dev/nvidia0)" c3:0
check "modprobe in a chroot" chroot /run/nvidia/driver modprobe nvidia-uvm
check "ldconfig in a chroot" sh -c "chroot /run/nvidia/driver ldconfig -p | grep -F '/$libraries/libcuda.so.1'"
check "firmware where the kernel looks" test -e "$(cat /sys/module/firmware_class/parameters/path)/nvidia/$driver/gsp_tu10x.bin"
LD_PRELOAD=/run/nvidia/driver/usr/$libraries/libnvidia-ml.so.1 /run/nvidia/driver/usr/bin/nvidia-smi
check "nvidia-smi from outside finds the driver, and no GPU that works" is $? 6
check "status" container "$runtime" exec first driverctr status
tell "stop"
container "$runtime" stop --time 30 first >/dev/null
check "a clean stop exits 0" is "$(exit_of first)" 0
nothing_left
finish
