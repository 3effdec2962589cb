# In a container of the driver: each line of /tries is STATUS|what it says|shell words, and must end like that, with
# nothing left of the driver. What it says may be several texts with ` && ` between them.
export pid_file=/run/nvidia/nvidia-driver.pid source=/opt/driverctr/source/nvidia-535.309.01/kernel
bad=0

says_all() {
    local text rest="$1 && "
    while [ -n "$rest" ]; do
        text=${rest%%' && '*} rest=${rest#*' && '}
        [[ $said == *"$text"* ]] || return
    done
}

# As the host sees it, whose processes are here. A start that failed leaves the reason for whoever asks.
left() {
    grep '^nvidia' /proc/modules
    awk '$5 ~ "^/run/nvidia/."' /proc/1/mountinfo
    find /run/nvidia -xdev -type f ! -name status.json
    grep . /sys/module/firmware_class/parameters/path
}

while IFS='|' read -r status text words; do
    began=$SECONDS
    said=$(timeout 100 bash -c "$words" 2>&1 </dev/null)
    ended=$?
    left=$(left)
    if [ "$ended" = "$status" ] && says_all "$text" && [[ $said != *Traceback* ]] && [ -z "$left" ]; then
        echo "ok: $status, $text: $words ($((SECONDS - began)) s)"
    else
        printf 'NOT OK: %s ended with %s, and should with %s and say: %s\n%s\n' "$words" "$ended" "$status" "$text" "$said"
        [ -z "$left" ] || printf 'left: %s\n' "$left"
        bad=1
    fi
done </tries
exit $bad
