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
# What was mapped is unmapped and closed again.
sleep_unmapped() {
    exec python3 -c '
import ctypes, os, sys, time
device = os.open(sys.argv[2], os.O_RDWR)
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.munmap.argtypes = ctypes.c_void_p, ctypes.c_size_t
address = libc.mmap(None, ctypes.c_size_t(4096), 1, 1, device, ctypes.c_long(0))
assert address not in (None, ctypes.c_void_p(-1).value), os.strerror(ctypes.get_errno())
assert libc.munmap(address, 4096) == 0
os.close(device)
open("/tmp/unmapped", "w").close()
time.sleep(int(sys.argv[1]))' "$1" "$2"
}
# An open file that waits in a socket is in the table of no process.
sleep_in_flight() {
    exec python3 -c '
import os, socket, sys, time
here, there = socket.socketpair()
device = os.open(sys.argv[2], os.O_RDONLY)
socket.send_fds(here, [b"x"], [device])
os.close(device)
open("/tmp/in-flight", "w").close()
time.sleep(int(sys.argv[1]))' "$1" "$2"
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
# What `who` has below a process, which ends it.
act_on() { echo "$said" | grep -F -A 1 -- "$1 (" | sed -n '2s/^ *//p'; }
# As systemd does with its services; nothing of it is here.
in_unit() {
    mkdir -p "/sys/fs/cgroup/system.slice/$1" && echo "$2" >"/sys/fs/cgroup/system.slice/$1/cgroup.procs"
}
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

if scenario "who names everybody, nobody else, and what frees the driver of them"; then
    bring_up main
    said=$(inside main driverctr who)
    check "nobody is in the way of an unload: exit status 0" is $? 0
    check "and it is said so" word "nobody uses the driver: nvidia $driver is loaded, and can be unloaded"
    check "our own daemon is named apart" word "pid $(persistenced) (nvidia-persistenced"
    : >/tmp/nvidia0
    # The minor of nvidia0 with the major of another driver.
    mknod /tmp/tty0 c 4 0
    host sleep_forked 7501 $device
    host sleep_mapped 7502 /run/nvidia/driver/dev/nvidia0
    host sleep_on 7508 $device
    host sleep_elsewhere 7503
    start user -- sh -c "exec sleep 7504 <$device"
    host sleep_on 7505 /dev/null
    host sleep_on 7506 /tmp/nvidia0
    host sleep_path_only 7507 $device
    host sleep_on 7509 /tmp/tty0
    host sleep_unmapped 7510 /run/nvidia/driver/dev/nvidia0
    check "they run" wait_for 20 runs "sleep 7503"
    check "the container runs" wait_for 60 runs "sleep 7504"
    check "the mapping is made" wait_for 20 grep -q nvidia0 "/proc/${others[1]}/maps"
    check "and its file is closed" fails sh -c "ls -l /proc/${others[1]}/fd | grep nvidia"
    check "another mapping was made, and is gone" wait_for 20 test -e /tmp/unmapped
    check "a process is of a unit" in_unit train.service "${others[2]}"
    said=$(inside main driverctr who)
    check "somebody is in the way: exit status 6" is $? 6
    echo "$said"
    elsewhere=$(pid_of "sleep 7503")
    check "a plain process" word "pid ${others[0]} (sleep 7501)"
    check "its child, which shares its open file" word "pid $(pgrep -P "${others[0]}") (sleep 7501)"
    check "is killed" is "$(act_on "pid ${others[0]}")" "kill ${others[0]}"
    check "a mapping whose file is closed" word "pid ${others[1]} (python3 -c"
    check "as such" word "[by a mapping alone, since "
    check "a service of the host" word "pid ${others[2]} (sleep 7508) [unit train.service, since "
    check "is stopped by its unit" is "$(act_on "pid ${others[2]}")" "systemctl stop train.service"
    check "another name in another namespace" word "pid $elsewhere (sleep 7503)"
    check "whose first process hears SIGKILL alone" is "$(act_on "pid $elsewhere")" "kill -KILL $elsewhere"
    id=$(container "$runtime" inspect --format '{{.Id}}' user)
    inner=$(pid_of "sleep 7504")
    check "a process in a container" word "pid $inner (sleep 7504) ["
    check "with the container's id" word "container ${id:0:12}, since "
    check "is stopped by its engine" is "$(act_on "pid $inner")" "${runtime%%-*} stop ${id:0:12}"
    for innocent in "${others[@]:3}"; do check "not $innocent" fails word "pid $innocent "; done
    check "nothing is unexplained" fails word "not visible"
    inside main driverctr who --json >/tmp/who.json
    check "for programs too" is "$(python3 -c 'import json; print(*sorted(
        one["action"].split()[0] for one in json.load(open("/tmp/who.json"))["holders"] if not one["ours"]))')" \
        "${runtime%%-*} kill kill kill kill systemctl"
    who=$said
    said=$(inside main driverctr plan)
    check "plan says the same" word "the driver is in use: nvidia has refcnt"
    check "of each" word "pid ${others[0]} (sleep 7501) [since "
    host sleep_in_flight 7511 $device
    check "an open file is on its way" wait_for 20 test -e /tmp/in-flight
    said=$(inside main driverctr who)
    check "a reference of nobody is told" word "holders not visible from here"
    check "and what may be behind it" word "or a file on its way between processes"
    check "who sent it is not blamed" fails word "pid $(pgrep -f 'socketpair.* 7511') "
    pkill -KILL -f 'socketpair.* 7511'
    unset 'others[-1]'
    container "$runtime" stop --time 30 main >/dev/null
    refused main 6 "pid ${others[0]} (sleep 7501)" "pid ${others[1]} (python3" \
        "Free the GPU: kill ${others[0]} " "; kill -KILL $elsewhere" \
        "; systemctl stop train.service (pid ${others[2]})" "; ${runtime%%-*} stop ${id:0:12} (pid $inner)"
    check "the modules stay" test -e /sys/module/nvidia_uvm
    run_container "$runtime" blind "$image" -v /run/nvidia:/run/nvidia:rshared -- driverctr unload >/dev/null
    containers+=(blind)
    check "without the host's pids it is refused too" is "$(container "$runtime" wait blind)" 6
    container "$runtime" logs blind >/tmp/blind 2>&1
    check "and says what it cannot see" grep -F 'not visible from here (run the container with --pid=host' /tmp/blind
    # What `who` said, done to the word; systemd is not here to be asked.
    echo "$who" | sed -n 's/^ \{6\}//p' | sed "s/^systemctl stop train.service$/kill ${others[2]}/" >/tmp/acts
    cat /tmp/acts
    check "each act can be done" bash -e /tmp/acts
    check "nobody is left" wait_for 20 fails runs "sleep 7504"
    start alone -- driverctr who
    check "so says who, without a driver container" is "$(exit_of alone)" 0
    check "in words" said alone "nobody uses the driver"
    for innocent in "${others[@]:4}"; do check "$innocent lives" kill -0 "$innocent"; done
    others_end
    rmdir /sys/fs/cgroup/system.slice/train.service
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
