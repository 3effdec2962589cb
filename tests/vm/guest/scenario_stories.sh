# shellcheck shell=bash
# The stories in docs/, as they happen: `python -m harness stories` records them there. The last one takes from the
# kernel, until its end, what the others need: their order matters.
. /mnt/guest/scenario.sh
set_up "$1"
common+=(-e RETRY=never)
device=/run/nvidia/driver/dev/nvidiactl
last="docker logs nvidia-driver 2>&1 | tail -n 1"

# run_driver [ARGUMENT...] -- COMMAND...: one container of that name at a time; its log is told to the end.
run_driver() {
    remove nvidia-driver 2>/dev/null
    start nvidia-driver "$@"
}
runs() { pgrep -f -x -- "$1"; }
# ends_with STATUS: the container has ended by itself.
ends_with() { check "the start ends with $1" is "$(exit_of nvidia-driver)" "$1"; }

if scenario "in use"; then
    bring_up nvidia-driver
    printf 'import sys, time\ndevice = open(sys.argv[1])\ntime.sleep(1000)\n' >/tmp/train.py
    (cd /tmp && exec python3 train.py $device) &
    training=$!
    docker run --detach --name notebook --network=none --device $device:/dev/nvidiactl --entrypoint= \
        "$image" sh -c "exec sleep 1000 </dev/nvidiactl" >/dev/null
    containers+=(notebook)
    check "both are there" wait_for 20 runs "sleep 1000"
    story in-use
    show "docker exec nvidia-driver driverctr who"
    show "docker stop --time 30 nvidia-driver; docker wait nvidia-driver"
    show "$last"
    told
    check "the modules stay" test -e /sys/module/nvidia
    kill $training
    remove notebook
    run_driver -- nvidia-driver init
    wait_for 240 ready_or_ended nvidia-driver
    story in-use-after
    echo '# both are gone; the next start'
    show "docker logs nvidia-driver 2>&1 | grep -E 'modules:|unload:|load:|ready' | grep -v done"
    told
    check "ready" ready
    take_down nvidia-driver
fi

if scenario "history"; then
    mkdir -p /tmp/host
    stored=(-v /tmp/host:/var/lib/driverctr)
    for _ in 1 2; do
        remove nvidia-driver 2>/dev/null
        bring_up nvidia-driver "${stored[@]}"
        take_down nvidia-driver
    done
    echo 'echo "No devices were found"; exit 6' >$orders/smi
    run_driver "${stored[@]}" -- nvidia-driver init
    ends_with 31
    rm $orders/smi
    remove nvidia-driver
    bring_up nvidia-driver "${stored[@]}"
    story history
    show "docker exec nvidia-driver driverctr history"
    told
    take_down nvidia-driver
fi

if scenario "headers missing"; then
    with_pids=("${common[@]}")
    common=(-v /run/nvidia:/run/nvidia:rshared -v "$orders:$orders:ro" -e MODULES_DIR=/tmp/none -e RETRY=never)
    run_driver -e DEFAULT_REPOSITORIES=false -- nvidia-driver init
    ends_with 11
    story headers-missing
    show "docker inspect --format '{{.State.ExitCode}}' nvidia-driver"
    show "$last"
    told
    common=("${with_pids[@]}")
    run_driver -e MODULES_DIR=/tmp/none -- driverctr doctor
    ends_with 0
    story headers-missing-after
    echo '# with --pid=host the host shows its own'
    show "docker run --rm --privileged --pid=host ... --entrypoint driverctr TAG doctor | grep headers" "logs nvidia-driver | grep headers"
    told
fi

if scenario "tried again"; then
    with_pids=("${common[@]}")
    common=(-v /run/nvidia:/run/nvidia:rshared -e MODULES_DIR=/tmp/none)
    echo 'deb http://mirror.example/debian bookworm main' >/tmp/own.list
    run_driver -e DEFAULT_REPOSITORIES=false -v /tmp/own.list:/etc/apt/sources.list.d/own.list:ro -- nvidia-driver init
    check "it waits for the next attempt" wait_for 120 grep -q '"phase": "retrying"' /run/nvidia/driverctr/status.json
    story tried-again
    show "$last"
    show "docker exec nvidia-driver driverctr status | head -n 5"
    told
    container "$runtime" stop --time 30 nvidia-driver >/dev/null
    check "a signal ends the wait" is "$(exit_of nvidia-driver)" 143
    common=("${with_pids[@]}")
fi

if scenario "wrong kernel"; then
    python3 - <<'PYTHON'
import json
known = json.load(open("/images/driver/usr/share/driverctr/image.json"))
known |= {"kernel_release": "6.1.0-1-amd64", "module_type": "proprietary"}
json.dump(known, open("/tmp/image.json", "w"))
PYTHON
    run_driver -v /tmp/image.json:/usr/share/driverctr/image.json:ro -- nvidia-driver init
    ends_with 38
    story wrong-kernel
    show "uname -r"
    show "$last"
    told
fi

if scenario "nouveau has the GPU"; then
    gpu=/sys/bus/pci/devices/0001:01:00.0
    # nouveau finds no firmware in the emulated GPU and lets it go: it has it reserved.
    [ ! -e $gpu/driver ] || echo 0001:01:00.0 >$gpu/driver/unbind
    echo nouveau >$gpu/driver_override
    run_driver -- nvidia-driver init
    ends_with 27
    story gpu-taken
    show "$last"
    told
    echo >$gpu/driver_override
fi

if scenario "not shared"; then
    shared=("${common[@]}")
    common=("${common[@]/:rshared/}")
    run_driver -- nvidia-driver init
    ends_with 7
    story not-shared
    show "$last"
    told
    common=("${shared[@]}")
fi

if scenario "no GPU comes up"; then
    echo 'echo "No devices were found"; exit 6' >$orders/smi
    run_driver -- nvidia-driver init
    ends_with 31
    story gpu-init-failed
    show "$last"
    show "docker run --rm --entrypoint driverctr TAG explain gpu-init-failed" \
        "docker run --rm --entrypoint= $image driverctr explain gpu-init-failed"
    told
    rm $orders/smi
fi

if scenario "a key that the kernel does not know"; then
    openssl req -new -x509 -newkey rsa:2048 -nodes -subj /CN=nobody/ -keyout /tmp/key -out /tmp/cert 2>/dev/null
    cp -r /images/stand-in/opt/driverctr/modules /tmp/signed
    for module in /tmp/signed/*/*/*.ko; do
        /usr/lib/linux-kbuild-*/scripts/sign-file sha256 /tmp/key /tmp/cert "$module"
    done
    sums /tmp/signed
    echo 1 >/sys/module/module/parameters/sig_enforce
    run_driver -- nvidia-driver init
    ends_with 9
    story signature-needed
    show "cat /sys/module/module/parameters/sig_enforce"
    show "$last"
    told
    run_driver -v /tmp/signed:/signed:ro -e MODULES_DIR=/signed -- nvidia-driver load
    ends_with 39
    story key-rejected
    echo '# modules signed with a key that was never enrolled'
    show "$last"
    told
fi

finish
