# A start that builds in place, and bare commands that do the same, in one container with the headers as README mounts them.
. /mnt/guest/scenario.sh
set_up podman-crun
# Without the host's pids the headers are used in place, as they are by the bare make.
common=(-v /run/nvidia:/run/nvidia:rshared -v "$orders:$orders:ro")
kbuild=$(readlink -f /usr/src/linux-kbuild-*)
cp -r /mnt/stand-in /tmp/source

if scenario "a cold start"; then
    start cold -v /lib/modules:/lib/modules:ro -v /usr/src:/usr/src:ro -v "$kbuild:$kbuild:ro" -v /mnt/bench:/bench:ro \
        -v "/tmp/source:$stand_in_source:ro" -e VERIFY_DEPTH=devices -- bash /bench/bench_cold_inner.sh $stand_in_source
    wait_for 1200 ended cold
    check "both were done" is "$(exit_of cold)" 0
    logs cold
fi

finish
