# Who uses the driver: every holder named, nobody innocent blamed or killed, and an unload that changes all or nothing.
. /mnt/guest/scenario.sh
set_up "$1"
device=/run/nvidia/driver/dev/nvidiactl
others=()

# The pid of whoever runs these words; none but the last process of a chain of shells is asked for.
pid_of() { pgrep -f -x -- "$1" | tail -n 1; }
runs() { test -n "$(pid_of "$1")"; }
# host WORD...: a process of the host, in the background.
host() {
    "$@" &
    others+=($!)
}
others_end() {
    [ ${#others[@]} = 0 ] || kill -KILL "${others[@]}"
    # The first process of a namespace hears no weaker signal.
    pkill -KILL -f -x 'sleep 75[0-9][0-9]'
    [ ${#others[@]} = 0 ] || wait "${others[@]}" 2>/dev/null
    others=()
}
sleep_on() { exec sleep "$1" <"$2"; }
sleep_mapped() {
    exec python3 -c '
import ctypes, os, sys, time
device = os.open(sys.argv[2], os.O_RDWR)
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
address = libc.mmap(None, ctypes.c_size_t(4096), 1, 1, device, ctypes.c_long(0))
assert address not in (None, ctypes.c_void_p(-1).value), os.strerror(ctypes.get_errno())
os.close(device)
time.sleep(int(sys.argv[1]))' "$1" "$2"
}
# Two processes share one open file: counted twice it would hide who has only a mapping.
sleep_forked() {
    exec 3<"$2"
    sleep "$1" &
    exec sleep "$1"
}
sleep_path_only() {
    exec python3 -c 'import os, sys, time; os.open(sys.argv[2], os.O_PATH); time.sleep(int(sys.argv[1]))' "$1" "$2"
}
# Another mount and pid namespace; the node is there under another name.
sleep_elsewhere() {
    exec unshare --mount --pid --fork sh -c 'mkdir -p /tmp/there && mount -t tmpfs t /tmp/there &&
        mknod /tmp/there/other c 195 255 && exec sleep "$0" </tmp/there/other' "$1"
}
word() { echo "$said" | grep -F -- "$1"; }
cleaned() {
    start "$1" -- driverctr unload
    check "unload takes away what is left" is "$(exit_of "$1")" 0
    nothing_left
}

# In place of rmmod: somebody opens the device after the last test, before the module goes.
cat >/tmp/rmmod <<'END'
#!/bin/sh
if [ -e /run/stand-in/come ]; then
    # At a stop our own nodes are gone by then; another container has its own.
    [ -e /tmp/node ] || mknod /tmp/node c 195 255
    (setsid sleep 7541 </tmp/node >/dev/null 2>&1 &)
    until [ "$(cat /sys/module/nvidia/refcnt)" -gt 2 ]; do :; done
fi
exec /sbin/rmmod "$@"
END
chmod +x /tmp/rmmod

if scenario "every holder is named, and nobody else"; then
    bring_up main
    : >/tmp/nvidia0
    host sleep_forked 7501 $device
    host sleep_mapped 7502 /run/nvidia/driver/dev/nvidia0
    host sleep_elsewhere 7503
    start user -- sh -c "exec sleep 7504 <$device"
    host sleep_on 7505 /dev/null
    host sleep_on 7506 /tmp/nvidia0
    host sleep_path_only 7507 $device
    check "they run" wait_for 20 runs "sleep 7503"
    check "the container runs" wait_for 60 runs "sleep 7504"
    check "the mapping is made" wait_for 20 grep -q nvidia0 "/proc/${others[1]}/maps"
    check "and its file is closed" fails sh -c "ls -l /proc/${others[1]}/fd | grep nvidia"
    said=$(inside main driverctr status)
    echo "$said" | grep '^in use'
    check "a plain process" word "pid ${others[0]} (sleep 7501)"
    check "its child, which shares its open file" word "pid $(pgrep -P "${others[0]}") (sleep 7501)"
    check "a mapping whose file is closed" word "pid ${others[1]} (python3 -c"
    check "as such" word "[by a mapping alone, since "
    check "another name in another namespace" word "pid $(pid_of "sleep 7503") (sleep 7503)"
    id=$(container "$runtime" inspect --format '{{.Id}}' user)
    check "a process in a container" word "pid $(pid_of "sleep 7504") (sleep 7504) ["
    check "with the container's id" word "container ${id:0:12}, since "
    for innocent in "${others[@]:3}"; do check "not $innocent" fails word "pid $innocent "; done
    check "nothing is unexplained" fails word "not visible"
    said=$(inside main driverctr plan)
    check "plan says the same" word "the driver is in use: nvidia has refcnt"
    container "$runtime" stop --time 30 main >/dev/null
    refused main 6 "pid ${others[0]} (sleep 7501)" "pid ${others[1]} (python3"
    check "the modules stay" test -e /sys/module/nvidia_uvm
    run_container "$runtime" blind "$image" -v /run/nvidia:/run/nvidia:rshared -- driverctr unload >/dev/null
    containers+=(blind)
    check "without the host's pids it is refused too" is "$(container "$runtime" wait blind)" 6
    container "$runtime" logs blind >/tmp/blind 2>&1
    check "and says what it cannot see" grep -F 'not visible from here (run the container with --pid=host' /tmp/blind
    others_end
    remove user
    cleaned cleaner
fi

if scenario "somebody comes between test and rmmod: our daemon runs again, the modules are whole"; then
    start keeper -v /tmp/rmmod:/usr/local/sbin/rmmod:ro -- sh -c 'nvidia-driver init; exec sleep 9999'
    check "ready" wait_for 240 ready
    kill -KILL "$(cat /run/nvidia/nvidia-driver.pid)"
    first=$(persistenced)
    check "the daemon outlives the driver's own process" test -n "$first"
    touch $orders/come
    inside keeper driverctr unload >/tmp/refused 2>&1
    check "refused as in use" is $? 6
    cat /tmp/refused
    check "who came is named" grep -F "pid $(pid_of 'sleep 7541') (sleep 7541)" /tmp/refused
    check "a daemon runs again" test -n "$(persistenced)" -a "$(persistenced)" != "$first"
    check "nvidia_uvm is there again" test -e /sys/module/nvidia_uvm
    check "no marker says ready" fails ready
    rm $orders/come
    others_end
    inside keeper driverctr unload
    check "unload" is $? 0
    nothing_left
fi

if scenario "somebody comes at the stop"; then
    bring_up late -v /tmp/rmmod:/usr/local/sbin/rmmod:ro
    touch $orders/come
    container "$runtime" stop --time 60 late >/dev/null
    refused late 6 "(sleep 7541)" "loaded again"
    check "nvidia_uvm is there again" test -e /sys/module/nvidia_uvm
    check "the nodes are there again" test -c /run/nvidia/driver/dev/nvidia-uvm
    check "the driver root stays" test -e /run/nvidia/driver/usr/bin/nvidia-smi
    check "no marker says ready" fails ready
    rm $orders/come
    others_end
    cleaned sweeper
fi

if scenario "a pid file that names an innocent"; then
    for name in sleep nvidia-persistenced; do
        bash -c "exec -a $name sleep 7551" &
        others+=($!)
        innocent=$!
        start "pid-$name" -- sh -c "mkdir -p /var/run/nvidia-persistenced; cd /var/run/nvidia-persistenced
            echo $innocent >nvidia-persistenced.pid; touch -d '1 hour ago' nvidia-persistenced.pid; exec nvidia-driver init"
        check "ready" wait_for 240 ready
        check "the pid file has another in it" inside "pid-$name" sh -c \
            "! grep -x $innocent /var/run/nvidia-persistenced/nvidia-persistenced.pid"
        take_down "pid-$name"
        check "the innocent lives" kill -0 $innocent
        others_end
    done
    nothing_left
fi

finish
