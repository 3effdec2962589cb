# The story `./dev demo` tells, on a host in a virtual machine. README has what it prints (`./dev demo --record`).
. /usr/lib/vm-host/lib.sh
set -e

tell() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
show() { printf '$ %s\n' "$*" && eval "$*"; }
driver() { container podman-crun "$@"; }

tell "1. A host: $(uname -r), a GPU on its bus (emulated), no driver"
show "lspci -nnk -d 10de:"
show "test ! -e /proc/driver/nvidia && echo 'no driver'"

tell "2. One privileged container brings the driver up"
mkdir -p /run/nvidia
echo '$ podman run --privileged --pid=host -v /run/nvidia:/run/nvidia:rshared driverctr'
run_container podman-crun driver /images/driver --pid=host -v /run/nvidia:/run/nvidia:rshared \
    -v /mnt/modules:/opt/driverctr/modules:ro -e VERIFY_DEPTH=devices -- nvidia-driver init >/dev/null
wait_for 240 test -e /run/nvidia/validations/.driver-ctr-ready || {
    driver logs driver
    exit 1
}
show "driver logs driver 2>&1 | grep -v 'done in'"

tell "3. The host has NVIDIA's real driver now"
show "lspci -nnk -d 10de:"
show "head -n 1 /proc/driver/nvidia/version"
show "lsmod | grep ^nvidia"
show "findmnt --output TARGET,SOURCE,FSTYPE /run/nvidia/driver"
show "driver exec driver driverctr status"

tell "4. In use: a process on the host opens the device. Who it is, and what a start would do now"
sleep 1000 </run/nvidia/driver/dev/nvidiactl &
user=$!
show "driver exec driver driverctr who" || echo "(exit status $?)"
show "driver exec driver driverctr plan"
kill "$user"
wait "$user" || true

tell "5. What only silicon can show: nvidia-smi reaches the driver, and the emulated GPU does not start"
show "chroot /run/nvidia/driver nvidia-smi" || echo "(exit status $?)"
show "dmesg | grep -E 'direct-loading firmware|RmInitAdapter' | tail -n 2"

tell "6. A signal, and the host is as it was"
show "driver stop --time 30 driver" >/dev/null
driver logs driver 2>&1 | sed -n '/stopping/,$p' | grep -v 'taking back'
show "driver wait driver"
show "grep -c ^nvidia /proc/modules || true"
show "find /run/nvidia -type f; findmnt /run/nvidia/driver || echo 'nothing left'"
tell "Done."
