# shellcheck shell=bash
# What may pass is tried again by the start that met it, and the history tells of it.
. /mnt/guest/scenario.sh
set_up "$1"
mkdir -p /tmp/host /tmp/drivers /tmp/modules
: >/tmp/termination
common+=(-v /tmp/host:/var/lib/driverctr -v /tmp/drivers:/drivers:ro -v /tmp/termination:/dev/termination-log)
in_a_pod=(-e RETRY=auto -e KUBERNETES_SERVICE_HOST=10.0.0.1)

status_says() { python3 -c 'import json,sys; d=json.load(open("/run/nvidia/driverctr/status.json")); assert eval(sys.argv[1]), d' "$1"; }
last_word_is() { python3 -c 'import json,sys; d=json.load(open("/tmp/termination")); assert d["code"] == sys.argv[1] and d["message"] and d["remedy"], d' "$1"; }
retrying() { status_says 'd["phase"] == "retrying"'; }
# What changes whenever a module is loaded, even by the same name at the same address.
loads() { stat -c '%n %i' /sys/module/nvidia /sys/module/nvidia_uvm /sys/module/nvidia_modeset | tr '\n' ' '; }
one_tree() { is "$(awk '$5 == "/run/nvidia/driver"' /proc/self/mountinfo | wc -l)" 1; }
# No modules on disk yet, and no room to build them.
cramped=(-v /tmp/modules:/modules:ro -e MODULES_DIR=/modules --tmpfs /var/tmp:size=1m -e RETRY_MAX_PAUSE=5)

if scenario "no room for a build, until modules come"; then
    touch /tmp/began
    start patient "${cramped[@]}" -e RETRY=auto -e RETRY_ATTEMPTS=100 -- nvidia-driver init
    check "it will try again" wait_for 60 retrying
    check "the status has attempt, cause, remedy and the next try" status_says \
        'd["attempt"] >= 1 and d["failure"]["code"] == "no-space" and d["failure"]["remedy"] and d["next_try"] > d["failure"]["at"]'
    check "so has the log" said patient "of 100 failed: "
    check "the termination message is there should it end" last_word_is no-space
    check "nothing says ready" fails ready
    cp -r /images/stand-in/opt/driverctr/modules/. /tmp/modules/
    check "it becomes ready without a restart" wait_for 120 ready_anew
    check "which was an attempt after the first" status_says 'd["attempt"] > 1 and d["phase"] == "ready" and not d["failure"]'
    check "what failed before is no last word" is "$(cat /tmp/termination)" ""
    inside patient driverctr history >/tmp/history
    check "the history has the start" grep -E ' ready +[0-9]+ +on-disk +535' /tmp/history
    take_down patient
    nothing_left
fi

if scenario "no room for a build, and an end of patience, or a signal"; then
    rm -rf /tmp/modules/*
    start gives-up "${cramped[@]}" -e RETRY=auto -e RETRY_ATTEMPTS=2 -- nvidia-driver init
    refused gives-up 15 "attempt 1 of 2 failed: " "nothing was touched"
    check "its last word" last_word_is no-space
    start stopped "${cramped[@]}" -e RETRY=auto -e RETRY_ATTEMPTS=9 -- nvidia-driver init
    check "it will try again" wait_for 60 retrying
    container "$runtime" stop --time 30 stopped >/dev/null
    check "a signal ends the pause" is "$(exit_of stopped)" 143
    check "its last word is why it was not ready" last_word_is no-space
    nothing_left
    check "each start is one line" is "$(grep -c no-space /tmp/host/store/history.jsonl)" 1
    check "one was stopped" grep -c '"outcome": "stopped"' /tmp/host/store/history.jsonl
fi

if scenario "in a pod a driver in use is waited for"; then
    echo 'NVreg_EnableStreamMemOPs=0' >/tmp/drivers/nvidia.conf
    bring_up former
    sleep 7621 </run/nvidia/driver/dev/nvidiactl &
    user=$!
    remove former
    echo 'NVreg_EnableStreamMemOPs=1' >/tmp/drivers/nvidia.conf
    touch /tmp/began
    start waits "${in_a_pod[@]}" -e PARAMETERS_WHEN_BUSY=refuse -e RETRY_MAX_PAUSE=5 -e RETRY_ATTEMPTS=1 -- nvidia-driver init
    check "it waits" wait_for 60 retrying
    check "and names who" status_says '"sleep 7621" in d["failure"]["message"] and any(use["module"] == "nvidia" for use in d["in_use"])'
    check "the last word would be that" last_word_is in-use
    check "a second attempt, though one was allowed" wait_for 60 status_says 'd["attempt"] >= 2'
    kill $user
    wait $user 2>/dev/null
    check "soon after its end the driver is ready" wait_for 120 ready_anew
    check "with the parameter" grep -x "EnableStreamMemOPs: 1" /proc/driver/nvidia/params
    take_down waits
    rm /tmp/drivers/nvidia.conf
    nothing_left
fi

if scenario "in a pod a daemon that fails is tried again once all is taken back"; then
    echo 'fail no such thing as a GPU' >$orders/persistenced
    touch /tmp/began
    start anew "${in_a_pod[@]}" -e RETRY_MAX_PAUSE=8 -e RETRY_ATTEMPTS=9 -- nvidia-driver init
    check "it will try again" wait_for 60 retrying
    check "nothing is loaded or mounted meanwhile" is "$(grep -c ^nvidia /proc/modules)$(driver_mounts)" 0
    rm $orders/persistenced
    check "it becomes ready without a restart" wait_for 120 ready_anew
    take_down anew
    nothing_left
fi

if scenario "in a pod a driver left by a killed container stays from attempt to attempt"; then
    bring_up killed -e DRIVER_CONFIG_DIGEST=12
    remove killed
    before=$(loads)
    flock /run/nvidia sleep 7622 &
    locker=$!
    touch /tmp/began
    start takes "${in_a_pod[@]}" -e DRIVER_CONFIG_DIGEST=12 -e RETRY_MAX_PAUSE=3 -e RETRY_ATTEMPTS=99 -- nvidia-driver init
    check "who keeps the driver root from being exported is waited for" wait_for 120 retrying
    check "and named" status_says 'd["failure"]["code"] == "mount-failed" and "sleep 7622" in d["failure"]["message"]'
    check "what was loaded stays" said takes "was loaded before this start: it stays for the next attempt (firmware)"
    check "a second attempt" wait_for 120 status_says 'd["attempt"] >= 2'
    pkill -P $locker
    wait $locker 2>/dev/null
    check "it becomes ready without a restart" wait_for 120 ready_anew
    check "no module was loaded or unloaded" is "$(loads)" "$before"
    check "one driver root" one_tree
    check "the digest is still there" is "$(cat /run/nvidia/nvidia-driver.state)" 12
    sleep 7621 </run/nvidia/driver/dev/nvidiactl &
    user=$!
    remove takes
    echo 'fail no such thing as a GPU' >$orders/persistenced
    touch /tmp/began
    start again "${in_a_pod[@]}" -e RETRY_MAX_PAUSE=3 -e RETRY_ATTEMPTS=99 -- nvidia-driver init
    check "a daemon that fails is tried again beside who uses the driver" wait_for 120 status_says 'd["attempt"] >= 3'
    check "who still runs" kill -0 $user
    check "from a driver root that is there" test -e /run/nvidia/driver/usr/bin/nvidia-smi
    rm $orders/persistenced
    check "that becomes ready, too" wait_for 120 ready_anew
    check "and touched no module" is "$(loads)" "$before"
    kill $user
    wait $user 2>/dev/null
    take_down again
    nothing_left
fi

if scenario "in a pod a driver that was unloaded is no reason to end"; then
    echo 'NVreg_EnableStreamMemOPs=0' >/tmp/drivers/nvidia.conf
    bring_up former
    remove former
    echo 'NVreg_EnableStreamMemOPs=1' >/tmp/drivers/nvidia.conf
    echo 'fail no such thing as a GPU' >$orders/persistenced
    touch /tmp/began
    start unloads "${in_a_pod[@]}" -e RETRY_MAX_PAUSE=3 -e RETRY_ATTEMPTS=99 -- nvidia-driver init
    check "it will try again" wait_for 120 retrying
    check "the former driver was unloaded, and tried once more" said unloads "on-disk modules do not serve, trying others"
    check "nothing is loaded meanwhile" fails grep ^nvidia /proc/modules
    rm $orders/persistenced
    check "it becomes ready without a restart" wait_for 120 ready_anew
    check "with the parameter" grep -x "EnableStreamMemOPs: 1" /proc/driver/nvidia/params
    take_down unloads
    rm /tmp/drivers/nvidia.conf
    nothing_left
fi

finish
