# Starts that end in the middle, and what the next start makes of what they, or other programs, left.
. /mnt/guest/scenario.sh
set_up "$1"
common+=(-v /mnt/guest/kill_at.py:/test/kill_at.py:ro)

one_tree() { is "$(awk '$5 == "/run/nvidia/driver"' /proc/self/mountinfo | wc -l)" 1; }
no_partial() { is "$(find /run/nvidia -xdev -name '.*' ! -name .driver-ctr-ready ! -name .driver-daemons-status)" ""; }
# comes_right NAME [ARGUMENT...]: a start that ends ready in spite of everything, and its stop.
comes_right() {
    bring_up "$@"
    check "one driver root" one_tree
    check "no half-written file" no_partial
    check "one persistenced" is "$(persistenced | wc -l)" 1
    take_down "$1"
    nothing_left
}

phase_is() { grep "\"step\": \"$1\"" /run/nvidia/driverctr/status.json; }
one_build_folder() { is "$(inside building find /var/tmp -maxdepth 1 -name 'driverctr-build-*' -type d | wc -l)" 1; }

if scenario "SIGKILL before and after each step"; then
    start boundaries -- python3 /test/kill_at.py boundaries
    check "each next start ended ready, and left nothing at its stop" is "$(exit_of boundaries)" 0
    logs boundaries
fi

if scenario "SIGKILL around the steps of a reload"; then
    echo NVreg_EnableStreamMemOPs=1 >/tmp/asked
    start reloads -v /tmp/asked:/drivers/nvidia.conf:ro -- python3 /test/kill_at.py boundaries loaded
    check "each next start loaded the driver anew, and left nothing at its stop" is "$(exit_of reloads)" 0
    logs reloads
    check "eight were killed" is "$(logs reloads | grep -c '^ok: killed')" 8
fi

if scenario "start and stop, again and again"; then
    start cycles -- python3 /test/kill_at.py cycles "${CYCLES:=8}"
    wait_for $((CYCLES * 15)) ended cycles
    check "fds, mounts, memory and modules are as they were" is "$(exit_of cycles)" 0
    logs cycles
fi

if scenario "out of memory, by the container's own limit"; then
    start oom --memory 160m -- python3 /test/kill_at.py after load oom
    check "the kernel ended it" is "$(exit_of oom)" 137
    check "the modules are still there" test -e /sys/module/nvidia_uvm
    comes_right after-oom
fi

if scenario "killed in the middle of a build"; then
    start building -v /mnt/stand-in:$stand_in_source:ro -e MODULES_DIR=/tmp/none -- nvidia-driver init
    check "it compiles" wait_for 300 pgrep cc1
    kill -KILL "$(cat /run/nvidia/nvidia-driver.pid)"
    check "it is dead" is "$(exit_of building)" 137
    check "its compiler with it" wait_for 5 fails pgrep 'cc1|make'
    # A restart keeps the container's files, and with them what the build left.
    rm /run/nvidia/driverctr/status.json
    container "$runtime" start building >/dev/null
    check "it begins to build anew" wait_for 60 phase_is modules
    check "in the only folder" wait_for 20 one_build_folder
    container "$runtime" stop --time 30 building >/dev/null
fi

if scenario "removed by force while ready, then k8s-driver-manager's uninstall"; then
    bring_up forced -e DRIVER_CONFIG_DIGEST=1
    remove forced
    comes_right after-force
    bring_up managed
    remove managed
    rm -f /run/nvidia/nvidia-driver.pid
    umount -l -R /run/nvidia/driver
    rmmod nvidia_modeset nvidia_uvm nvidia
    comes_right after-manager
fi

if scenario "NVIDIA's own container, killed"; then
    cat >/tmp/theirs <<'TEXT'
        mount --make-runbindable /sys; mount --make-private /sys
        mkdir -p /run/nvidia/driver; mount --rbind / /run/nvidia/driver
        echo -n /run/nvidia/driver/lib/firmware >/sys/module/firmware_class/parameters/path
        echo $$ >/run/nvidia/nvidia-driver.pid
        mkdir -p /run/nvidia/validations; echo Ready >/run/nvidia/validations/.driver-daemons-status
        touch /run/nvidia/validations/.driver-ctr-ready
        sleep infinity
TEXT
    stand_in nvidia && stand_in nvidia-uvm
    start theirs -v /tmp/theirs:/theirs:ro -- bash /theirs
    check "it mounted its root" wait_for 60 ready
    remove theirs
    check "its root is still mounted" test -n "$(driver_mounts)"
    bring_up after-theirs
    check "one driver root" one_tree
    take_down after-theirs
    check "the firmware path, which they set, stays" grep . /sys/module/firmware_class/parameters/path
    printf '\0' >/sys/module/firmware_class/parameters/path
    nothing_left
fi

if scenario "stacked mounts, an innocent's pid, a marker without a driver"; then
    sleep 7531 &
    innocent=$!
    mkdir -p /run/nvidia/driver $validations
    for layer in 1 2 3; do mount -t tmpfs "layer$layer" /run/nvidia/driver; done
    echo $innocent >/run/nvidia/nvidia-driver.pid
    echo Ready >$validations/.driver-daemons-status
    touch $validations/.driver-ctr-ready
    start confused -- sh -c "mkdir -p /run/nvidia-persistenced && echo $innocent >/run/nvidia-persistenced/nvidia-persistenced.pid && exec nvidia-driver init"
    check "the marker goes at once" wait_for 60 fails ready
    check "ready for true" wait_for 60 ready
    check "one driver root" one_tree
    take_down confused
    check "the innocent lives" kill $innocent
    nothing_left
fi

finish
