# shellcheck shell=bash
# What status tells, and from where: a second process, another container, the host through the driver root, after a crash.
# Lines that begin with "document: " are judged outside, by the schema.
. /mnt/guest/scenario.sh
set_up "$1"
mkdir -p /tmp/host
common+=(-v /tmp/host:/var/lib/driverctr)
gpu='GA100 \[A100 SXM4 40GB\] \[10de:20b0\]'

# tells COMMAND...: what it prints goes to /tmp/told, what it says to /tmp/words, its end to $ended_with.
tells() {
    "$@" >/tmp/told 2>/tmp/words
    ended_with=$?
    cat /tmp/told /tmp/words
}
from_host() { chroot /run/nvidia/driver driverctr "$@"; }
has() { grep -E -- "$1" /tmp/told; }
json() { python3 -c 'import json,sys; d=json.load(open("/tmp/told")); assert eval(sys.argv[1]), d' "$1"; }
document() { python3 -c 'import json; print("document:", json.dumps(json.load(open("/tmp/told"))))'; }
# wakes NAME: how often a process of that container was switched to.
wakes() {
    awk '/^voluntary_ctxt_switches/ { n += $2 } END { print n }' "/proc/$(pgrep -f 'driverctr status --wait' | head -n 1)/status"
}
waits() { pgrep -f 'driverctr status --wait'; }

sleeps() { local before; before=$(wakes) && sleep 3 && [ "$(wakes)" = "$before" ]; }

if scenario "from everywhere, and to its end"; then
    # Nothing of ours is in /run/nvidia yet.
    start waiter -- driverctr status --wait ready --timeout 240
    check "it waits" wait_for 30 waits
    # On a busy machine it may still be on its way to sleep.
    check "and sleeps" wait_for 30 sleeps
    touch /tmp/began
    start main -e VERIFY_DEPTH=smi -- sh -c 'nvidia-driver init; exec sleep 9999'
    check "ready" wait_for 240 ready
    check "who waited for it is told" is "$(exit_of waiter)" 0
    check "with the whole status" has_said waiter "phase:        ready, since "

    sleep 2
    tells inside main driverctr status
    check "a second process: ready" is $ended_with 0
    check "phase and since when" has '^phase:        ready, since [0-9-]+ [0-9:]+ UTC \([0-9]+ (s|min)\)$'
    check "ready" has '^ready:        yes$'
    check "wanted" has "^driver:       $driver \(proprietary\) for $(uname -r)\$"
    check "loaded, and that it is the one checked" has "^loaded:       $driver \(proprietary\), build [0-9a-f]{12}, the one checked\$"
    check "where the modules came from" has '^modules from: on-disk$'
    check "the store" has '^store:        .*/var/lib/driverctr/store: [0-9]+ entr'
    check "the kernel that runs" has "^running:      $(uname -r) #"
    check "the GPU by its name, and that it answers" has "^gpu:          0001:01:00.0 $gpu bound to nvidia, answers\$"
    check "modules with their refcnt" has '^module:       nvidia .* live, refcnt [0-9]+, held by nvidia_'
    check "the daemon" has '^daemon:       nvidia-persistenced \(pid '
    check "the driver root" has '^driver root:  1 mounted$'
    check "the markers" has '^marker:       validations/.driver-ctr-ready: '
    check "the steps" has '^steps:        withdraw [0-9.]+ s'
    check "no colours into a pipe" fails has $'\033'
    tells inside main driverctr status --json
    document
    check "the same for programs" json 'd["ready"] and d["phase"] == "ready" and d["process"]["alive"] is True'
    check "one that is ready already is not waited for" inside main driverctr status --wait ready --timeout 0

    tells from_host status
    check "from the host: ready" is $ended_with 0
    check "the same phase" has '^phase:        ready, since '
    check "the driver root as the host has it" has '^driver root:  1 mounted$'
    check "the store of the container" has '^store:        .*/store: [0-9]+ entr'
    check "the daemon from there" has '^daemon:       nvidia-persistenced \(pid '
    tells from_host status --json
    document
    check "for programs too" json 'd["ready"] and d["driver_root"] == {"layers": 1, "ours": True}'

    tells from_host doctor
    check "doctor from the host: nothing is in the way" is $ended_with 0
    check "it sees the shared folder as the container does" has '^ok +run-folder +shared with the host$'
    check "and the modules" has '^ok +modules +keep the modules that are loaded'
    tells env STORE_DIR=/nowhere RETRY=perhaps chroot /run/nvidia/driver driverctr doctor --json
    check "by the settings of the container" is $ended_with 0
    from_host doctor --bundle - >/tmp/bundle.tar.gz
    check "a bundle from the host" is $? 0
    tells tar -xzOf /tmp/bundle.tar.gz --wildcards '*/status.txt'
    check "tells that it serves" has '^ready:        yes$'
    tells tar -xzOf /tmp/bundle.tar.gz --wildcards '*/markers.txt'
    check "has the markers" has '\.driver-ctr-ready, '
    tells tar -xzOf /tmp/bundle.tar.gz --wildcards '*/settings-running.json'
    check "and the settings" has '"VERIFY_DEPTH": "smi"'
    tells tar -xzOf /tmp/bundle.tar.gz --wildcards '*/index.txt'
    check "every part of it" fails has 'not to be had'

    for verb in who history "explain in-use" "store list" "status --wait ready --timeout 0"; do
        # shellcheck disable=SC2086 # words of a command
        tells inside main env RETRY=perhaps driverctr $verb
        check "whatever the settings are: $verb" is $ended_with 0
    done
    tells inside main env RETRY=perhaps driverctr doctor
    check "doctor refuses them" is $ended_with 3
    check "by a check of their own" has "^refused +settings +bad-setting: RETRY='perhaps' is not "
    check "and makes the others" has '^ok +run-folder '

    start other -- driverctr status
    check "another container with the host's processes" is "$(exit_of other)" 0
    run_container "$runtime" blind "$image" -v /run/nvidia:/run/nvidia:rshared -- driverctr status >/dev/null
    check "one without them is not sure" is "$(container "$runtime" wait blind)" 30
    tells container "$runtime" logs blind
    check "and says so" has "^process:      the driver container's process is not visible from here"
    remove blind

    kill -KILL "$(cat /run/nvidia/nvidia-driver.pid)"
    sleep 1
    for way in "inside main driverctr" from_host; do
        # shellcheck disable=SC2086 # words of a command
        tells $way status
        check "after a crash, $way: not ready" is $ended_with 30
        check "the phase says so" has '^phase:        crashed$'
        check "whose process it was" has '^process:      pid [0-9]+ is dead, and left phase ready, since 20'
        check "the modules are still there" has '^loaded:       '
        # shellcheck disable=SC2086
        tells $way doctor
        check "doctor tells what a start would meet" has '^ok +gpu +0001:01:00.0 '
    done
    # shellcheck disable=SC2086
    tells from_host status --json
    document
    tells inside main driverctr status --wait ready --timeout 2
    check "waited for in vain" is $ended_with 30
    check "it says why" grep -F 'not ready after 2 s: crashed' /tmp/words
    inside main driverctr unload
    check "unload" is $? 0
    nothing_left
fi

if scenario "a start that fails is told, and one that comes after it"; then
    echo 'echo "No devices were found"; exit 6' >$orders/smi
    start broken -e VERIFY_DEPTH=smi -e RETRY=never -- sh -c 'nvidia-driver init; exec sleep 9999'
    check "it fails" wait_for 120 grep -q '"phase": "failed"' /run/nvidia/driverctr/status.json
    tells inside broken driverctr status --wait ready --timeout 1
    check "waited for in vain" is $ended_with 30
    check "with phase and step, code and remedy" grep -E 'not ready after 1 s: failed, at step verify, .*; gpu-init-failed: ' /tmp/words
    check "the failure" has '^failure:      gpu-init-failed: '
    check "and what to do" has '^remedy:       [A-Z]'
    check "nothing is loaded" has '^loaded:       nothing$'
    tells inside broken driverctr status --json
    document
    rm $orders/smi
    (tells inside broken driverctr status --wait ready --timeout 120; echo $ended_with >/tmp/waited) &
    sleep 2
    bring_up whole
    check "who waits beside it hears of the next start" wait_for 30 test -e /tmp/waited
    check "as ready" is "$(cat /tmp/waited)" 0
    tells inside whole driverctr status
    check "steps have their medians" has '^steps: .*unload [0-9.]+ s'
    take_down whole
    nothing_left
fi

finish
