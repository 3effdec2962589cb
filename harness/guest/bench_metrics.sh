# The wait with metrics switched on against the wait without, on modules on disk: one JSON line for each number.
. /mnt/guest/scenario.sh
set_up podman-crun
idle=${1:-60}
mkdir -p /tmp/textfile

switches() { awk '/ctxt_switches/ { n += $2 } END { print n }' "$@"; }
number() { echo "{\"what\": \"$1\", \"value\": $2}"; }
megabytes() { awk '$1 == "VmRSS:" { printf "%.1f", $2 / 1024 }' "/proc/$1/status"; }
others() { find "/proc/$1/task" -mindepth 2 -maxdepth 2 -name status ! -path "*/task/$1/*"; }
scrape() {
    exec 5<>/dev/tcp/127.0.0.1/9400
    printf 'GET /metrics HTTP/1.0\r\n\r\n' >&5
    cat <&5 >/tmp/scrape
    exec 5>&-
}

if scenario "without"; then
    bring_up without -e PREBUILD=false
    pid=$(cat /run/nvidia/nvidia-driver.pid)
    sleep 10
    number off-mb "$(megabytes "$pid")"
    take_down without
fi

if scenario "with"; then
    bring_up with -e PREBUILD=false -e METRICS_ADDRESS=:9400 -v /tmp/textfile:/textfile \
        -e METRICS_TEXTFILE=/textfile/driverctr.prom
    pid=$(cat /run/nvidia/nvidia-driver.pid)
    for _ in $(seq 50); do scrape; done
    check "it is served" grep -x "driverctr_ready 1.0" /tmp/scrape
    sleep 10
    # shellcheck disable=SC2046 # one file each
    before=$(switches $(others "$pid")) all=$(switches /proc/"$pid"/task/*/status)
    sleep "$idle"
    # shellcheck disable=SC2046 # one file each
    number thread-wake-ups $(($(switches $(others "$pid")) - before))
    number wake-ups $(($(switches /proc/"$pid"/task/*/status) - all))
    number on-mb "$(megabytes "$pid")"
    take_down with
    nothing_left
fi

finish
