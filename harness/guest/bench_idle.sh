# The wait after a start that built its modules, in place, and put them into the store: one JSON line for each number.
. /mnt/guest/scenario.sh
set_up podman-crun
idle=${1:-60}
mkdir -p /tmp/host

switches() { awk '/ctxt_switches/ { n += $2 } END { print n }' /proc/"$1"/task/*/status; }
number() { echo "{\"what\": \"$1\", \"value\": $2}"; }
megabytes() { awk -v what="$1:" '$1 == what { printf "%.1f", $2 / 1024 }' "/proc/$pid/status"; }

if scenario "the wait after a build"; then
    touch /tmp/began
    start built -v /tmp/host:/var/lib/driverctr -v /mnt/stand-in:$stand_in_source:ro -e MODULES_DIR=/tmp/none \
        -- nvidia-driver init
    wait_for 1200 ready_or_ended built
    check "ready" ready_anew
    check "its modules were built, and are in the store" test -f "$(echo /tmp/host/store/entries/*/build.log)"
    check "kernels that come next are looked out for" fails said built "no modules are built for kernels that come next"
    pid=$(cat /run/nvidia/nvidia-driver.pid)
    sleep 5
    before=$(switches "$pid")
    sleep "$idle"
    number wake-ups $(($(switches "$pid") - before))
    number rss-mb "$(megabytes VmRSS)"
    number most-mb "$(megabytes VmHWM)"
    logs built
    take_down built
    nothing_left
fi

finish
