# No modules on disk: init builds them in the container, with the host's own headers, and loads them. The source is the
# stand-in driver's, mounted where the image has NVIDIA's. It does not answer nvidia-persistenced, so the start ends
# there: with that daemon's own exit status and its reason, which it tells only syslog, and with everything undone.
. /usr/lib/vm-host/lib.sh
set -e
mkdir -p /run/nvidia
run_container podman-crun drv /images/driver --pid=host -v /run/nvidia:/run/nvidia:rshared \
    -v /mnt/source:/opt/driverctr/source/nvidia-535.309.01/kernel:ro -e VERIFY_DEPTH=devices -- nvidia-driver init
status=$(container podman-crun wait drv)
container podman-crun logs drv >/tmp/log 2>&1
cat /tmp/log
[ "$status" = 25 ]
grep -q 'modules: build the modules from the image' /tmp/log
grep -q 'load: done' /tmp/log
grep -q 'ERROR.*Failed to query NVIDIA devices' /tmp/log
dmesg | grep -q "nvidia: module license"
if grep '^nvidia' /proc/modules; then exit 1; fi
if grep ' /run/nvidia/driver ' /proc/self/mountinfo; then exit 1; fi
[ ! -e /run/nvidia/validations/.driver-ctr-ready ]
