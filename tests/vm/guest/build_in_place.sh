# No modules on disk: init builds them in the container, with the host's own headers, and loads them. The source is the
# stand-in driver's, mounted where the image has NVIDIA's.
. /usr/lib/vm-host/lib.sh
set -e
mkdir -p /run/nvidia
run_container podman-crun drv /images/driver --pid=host -v /run/nvidia:/run/nvidia:rshared \
    -v /mnt/source:/usr/src/nvidia-535.309.01/kernel:ro -e VERIFY_DEPTH=devices -- nvidia-driver init
wait_for 600 test -e /run/nvidia/validations/.driver-ctr-ready || {
    container podman-crun logs drv
    exit 1
}
container podman-crun logs drv
container podman-crun exec drv driverctr status | grep 'modules from: build'
grep -q stand-in /proc/driver/nvidia/version
container podman-crun stop --time 30 drv
[ "$(container podman-crun wait drv)" = 0 ]
! grep '^nvidia' /proc/modules
