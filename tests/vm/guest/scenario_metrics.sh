# Metrics: by HTTP and in a file, from the beginning of a start to its end, and after one that failed or was killed.
. /mnt/guest/scenario.sh
set_up "$1"
port=9400
folder=/tmp/textfile
prom=$folder/driverctr.prom
mkdir -p $folder
watched=(-v $folder:/textfile -e METRICS_ADDRESS=127.0.0.1:$port -e METRICS_TEXTFILE=/textfile/driverctr.prom)

# get PATH: the whole answer, by bash alone.
get() {
    exec 5<>/dev/tcp/127.0.0.1/$port || return
    printf 'GET %s HTTP/1.0\r\n\r\n' "$1" >&5
    cat <&5
    exec 5>&-
}
answers() { get "$1" 2>&1 | tee /tmp/answer | grep -F -- "$2" || { cat /tmp/answer; return 1; }; }
value() { get /metrics 2>&1 | grep -F -- "$1 " | tee /tmp/value | grep -qx -- "$1 $2" || { cat /tmp/value; return 1; }; }
kept() { grep -qxF -- "$1 $2" $prom || { grep -F -- "$1" $prom; return 1; }; }

if scenario "served from the beginning to the end"; then
    echo 'sleep 5; exec /usr/bin/true' >$orders/smi
    touch /tmp/began
    start watched "${watched[@]}" -- nvidia-driver init
    check "a start that begins is seen" wait_for 60 value 'driverctr_phase{phase="starting"}' 1.0
    check "it is not ready" answers /readyz "503 Service Unavailable"
    check "it lives" answers /healthz "200 OK"
    rm $orders/smi
    wait_for 240 ready_or_ended watched
    check "it is ready" wait_for 10 value driverctr_ready 1.0
    check "so says the probe" wait_for 10 answers /readyz "200 OK"
    check "so says the file" wait_for 10 kept driverctr_ready 1.0
    check "steps have their times" grep -E 'driverctr_step_seconds\{step="load"\} [0-9.]+' $prom
    check "and the whole" grep -E 'driverctr_start_seconds [0-9.]+' $prom
    check "the kernel's word counts: a node of a GPU goes" inside watched mv /dev/nvidia0 /dev/nvidia0.away
    check "not ready at once" answers /readyz "/dev/nvidia0 is missing"
    check "nor by the metrics" value driverctr_ready 0.0
    inside watched mv /dev/nvidia0.away /dev/nvidia0
    check "ready again" answers /readyz "200 OK"
    get /metrics | tr -d '\r' | grep -v '^#' | sed 's/^/metric: /'
    take_down watched
    check "nobody answers any more" fails get /healthz
    check "the file went with the stop" absent $prom
    nothing_left
fi

if scenario "clients that hang keep nobody waiting"; then
    bring_up hung "${watched[@]}"
    hanging=()
    for _ in $(seq 20); do
        exec {descriptor}<>/dev/tcp/127.0.0.1/$port
        printf 'GET /metr' >&"$descriptor"
        hanging+=("$descriptor")
    done
    check "another is served" wait_for 10 answers /readyz "200 OK"
    take_down hung
    for descriptor in "${hanging[@]}"; do exec {descriptor}>&-; done
    nothing_left
fi

if scenario "what failed, and what was killed, stays in the file"; then
    echo 'echo "No devices were found"; exit 6' >$orders/smi
    start failing "${watched[@]}" -e RETRY=never -- nvidia-driver init
    check "it fails" is "$(exit_of failing)" 31
    check "the file has the code" kept 'driverctr_failure{code="gpu-init-failed"}' 1.0
    check "and the phase" kept 'driverctr_phase{phase="failed"}' 1.0
    rm $orders/smi
    bring_up killed "${watched[@]}"
    check "a start that goes well has no failure" fails grep 'driverctr_failure{' $prom
    remove killed
    check "a killed one's file tells when it looked last" grep -E 'driverctr_last_check_timestamp_seconds [0-9.e+]+' $prom
    bring_up next "${watched[@]}"
    take_down next
    check "the file went with the next stop" absent $prom
    nothing_left
fi

if scenario "no address and no folder for metrics is no reason to fail"; then
    bring_up poor -e METRICS_ADDRESS=192.0.2.1:$port -e METRICS_TEXTFILE=/nowhere/driverctr.prom
    check "it tells of the address" said poor "METRICS_ADDRESS=192.0.2.1:$port: Cannot assign requested address"
    check "and of the folder" said poor "METRICS_TEXTFILE=/nowhere/driverctr.prom: No such file or directory"
    inside poor driverctr status >/tmp/status || true
    check "the status too" grep -E 'degraded.*METRICS_ADDRESS' /tmp/status
    take_down poor
    nothing_left
fi

finish
