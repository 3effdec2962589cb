# shellcheck shell=bash
# Two boots of one node (tests/vm/test_reboot.py), of which only the disk below the store outlasts the first.
. /mnt/guest/scenario.sh
set_up "$1"
mkdir -p /tmp/drivers /var/lib/driverctr
common+=(-v /var/lib/driverctr:/var/lib/driverctr -v /tmp/drivers:/drivers:ro -e MODULES_DIR=/tmp/none)
store=/var/lib/driverctr/store
tracing=/sys/kernel/tracing

asks() { echo "$1" >/tmp/drivers/nvidia.conf; }
status_says() { python3 -c 'import json,sys; d=json.load(open("/run/nvidia/driverctr/status.json")); assert eval(sys.argv[1]), d' "$1"; }
parameter_is() { grep -qx "EnableStreamMemOPs: $1" /proc/driver/nvidia/params; }
# What the kernel was asked to execute since the tracing began, in whichever container.
executed() { grep -oE 'filename=\S+' $tracing/trace | grep -E "/($1)\$" | sort -u; }
network_of() { inside "$1" readlink /proc/self/ns/net; }

if scenario "first boot: the power is cut while modules of the store serve"; then
    asks NVreg_EnableStreamMemOPs=1
    fill_store -e MODULES_DIR=/opt/driverctr/modules
    bring_up first
    check "what serves is pinned" wait_for 30 grep -q '"NVreg_EnableStreamMemOPs=1"' $store/pins.json
    exit $((failures > 0))
fi

if scenario "second boot: parameters with which it does not load give way to those of the boot before"; then
    check "the host has no headers" is "$(ls -d /usr/src/linux-headers-* "/lib/modules/$(uname -r)/build/Makefile" 2>/dev/null)" ""
    mount -t tracefs tracefs $tracing
    echo 1 >$tracing/events/sched/sched_process_exec/enable
    export network=none
    asks fail_init=19
    bring_up rolled
    check "it says why" status_says 'any("rolled back" in r and "modprobe nvidia failed" in r for r in d["degraded"])'
    check "the former parameters are back" parameter_is 1
    take_down rolled
    start forgets -- driverctr unload
    check "unload forgets what failed" is "$(exit_of forgets)" 0
    nothing_left
fi

if scenario "second boot: no headers, no compiler, no network, and ready"; then
    asks NVreg_EnableStreamMemOPs=1
    bring_up again -v /dev/null:/usr/bin/gcc-12:ro -v /dev/null:/usr/bin/make:ro
    check "it has no network" fails is "$(network_of again)" "$(readlink /proc/self/ns/net)"
    check "it says where the modules are from" said again "take the modules from the store"
    check "the status says so" status_says 'd["modules_from"] == "store" and d["phase"] == "ready" and not d["degraded"]'
    check "the parameters are those asked for" parameter_is 1
    check "the kernel has the build that is stored" is \
        "$(tail -c 20 /sys/module/nvidia/notes/.note.gnu.build-id | od -An -tx1 | tr -d ' \n')" \
        "$(python3 -c 'import json,sys; print(json.load(open(sys.argv[1]))["modules"]["nvidia"]["build_id"])' $store/entries/*/manifest.json)"
    take_down again
    check "the kernel told of all that was executed" grep -E 'entries-written: ([0-9]+)/\1 ' $tracing/trace
    check "of modprobe" test -n "$(executed modprobe)"
    check "of no compiler and no package tool" is "$(executed 'gcc.*|cc1|as|ld|make|apt.*|dpkg.*')" ""
    nothing_left
fi

finish
