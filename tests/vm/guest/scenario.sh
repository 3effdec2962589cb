# shellcheck shell=bash
# What the guest scripts share: checks that are counted, containers of the driver, the host's state before and after.
#
#   . /mnt/guest/scenario.sh
#   set_up "$1"                       # docker, podman-crun or podman-runc
#   if scenario "a title"; then       # begins on a clean host; what it leaves is checked before the next begins
#       bring_up one -e MAX_THREADS=2
#       check "the module is there" test -e /sys/module/nvidia
#       take_down one
#       tries many <<<"3|is not a driver version|DRIVER_VERSION=latest nvidia-driver init"
#   fi
#   finish
#
# CASES, a regular expression, chooses by title. The stand-in programs take orders from files in /run/stand-in (see
# images/stand-in-programs): /run/stand-in/smi, /run/stand-in/persistenced; each scenario begins without any.
. /usr/lib/vm-host/lib.sh
driver=535.309.01
validations=/run/nvidia/validations
orders=/run/stand-in
stand_in_source=/opt/driverctr/source/nvidia-$driver/kernel
missing=() runtime='' image='' title='' failures=0 containers=() scenario_failures=0
# Arguments of every container; a file may add its own. What fails is not tried again, so that a test has its end.
common=(--pid=host -v /run/nvidia:/run/nvidia:rshared -e RETRY=never)

tell() { echo "[$(cut -d' ' -f1 /proc/uptime)] $*"; }

# set_up RUNTIME [FOLDER|DIGEST]: have the image ready, as a folder or saved in /images/saved; without one that of the
# stand-in driver.
set_up() {
    runtime=$1 image=${2:-}
    mkdir -p /run/nvidia /run/mellanox $orders
    if [ -z "$image" ]; then
        image=/images/stand-in
        common+=(-v $orders:$orders:ro)
        lay_over $image ro
    fi
    # Docker passes over a container that is gone by itself.
    [ "$runtime" = docker ] || missing=(--ignore)
    case $runtime:$image in
    docker:/*) docker_image "$image" ;;
    docker:*) load_image ;;
    esac
}

# lay_over FOLDER OPTIONS: the stand-in's modules and programs, and the checkout's sources if shared, over the image's
# root.
lay_over() {
    local layers=/images/driver name
    for name in layer sources; do
        [ -d "/tmp/$name" ] || [ ! -d /mnt/$name ] || { mkdir -p "/tmp/$name" && cp -a "/mnt/$name/." "/tmp/$name"; }
        [ ! -d "/tmp/$name" ] || layers=/tmp/$name:$layers
    done
    mkdir -p "$1" && mount -t overlay -o "$2,lowerdir=$layers" stand-in "$1"
}

# docker_image FOLDER [TAG VERSION]: have an image of that folder, and name it in $image.
# Importing an image takes minutes where the processor is emulated. So Docker gets an empty one, and its only layer is
# covered by the folder: what a container then sees is that folder by overlay2, as with any image.
docker_image() {
    local layer
    image=driver:${2:-test}
    start_docker
    # A file of its own, since two layers with the same content would be one.
    : >"/tmp/${2:-test}.layer"
    tar -cf - -C /tmp "${2:-test}.layer" |
        docker import --change "ENV DRIVER_VERSION=${3:-$driver}" - "$image" >/dev/null
    layer=$(docker image inspect --format '{{.GraphDriver.Data.UpperDir}}' "$image")
    mount --bind "$1" "$layer"
}

# As an image comes to a node. Containers are started by the digest of its configuration, which names the content of
# each layer.
load_image() {
    start_docker
    docker load --input /images/saved || exit
    tell "loaded"
}
# runs_as_loaded NAME: its image is the one asked for, and nothing covers the layers that Docker unpacked.
runs_as_loaded() {
    is "$(docker container inspect --format '{{.Image}}' "$1")" "$image" &&
        fails grep ' /var/lib/docker/overlay2/[^/ ]*/diff ' /proc/self/mountinfo
}

check() {
    local what=$1
    shift
    if "$@" >/tmp/check 2>&1; then echo "ok: $what"; else
        echo "FAILED: $what ($*)" | cut -c1-500
        tail -n 20 /tmp/check | cut -c1-500
        failures=$((failures + 1))
    fi
}
is() { [ "$1" = "$2" ] || { echo "is: $1"; return 1; }; }
absent() { [ ! -e "$1" ] && [ ! -L "$1" ]; }
fails() { ! "$@"; }

# start NAME [ARGUMENT...] -- COMMAND...: a container of the driver, in the background; it is there a few seconds later.
# One call that lasts, and has the log and the end, instead of many: each of Docker's takes a second here.
start() {
    containers+=("$1")
    rm -f "/tmp/exit.$1"
    : >"/tmp/log.$1"
    {
        attached=1 run_container "$runtime" "$1" "$image" "${common[@]}" "${@:2}" >"/tmp/log.$1" 2>&1
        echo $? >"/tmp/exiting.$1"
        mv "/tmp/exiting.$1" "/tmp/exit.$1"
    } &
}
logs() { cat "/tmp/log.$1"; }
has_said() { logs "$1" | grep -F -- "$2"; }
# said NAME TEXT: what is told after the marker is published comes a moment later.
said() { wait_for "$(ended "$1" && echo 0 || echo 5)" has_said "$@" && has_said "$@"; }
unsaid() { sleep 0.5 && fails has_said "$@"; }
# The stand-in's sleep looks ten times a second whether it may end: the process is seen running now and then.
said_state() { logs "$1" | grep -Eq 'state [DR], in the kernel: stand_in_sleep'; }
exit_of() { wait_for 240 ended "$1" && cat "/tmp/exit.$1"; }
inside() { container "$runtime" exec "$@"; }
ready() { test -e $validations/.driver-ctr-ready; }
ended() { [ -e "/tmp/exit.$1" ]; }
ready_or_ended() { ready_anew || ended "$1"; }
# A marker may be there from before: that of a container which was killed goes only when the next one begins.
ready_anew() { [ $validations/.driver-ctr-ready -nt /tmp/began ]; }

# bring_up NAME [ARGUMENT...]: init, and wait until it is ready.
bring_up() {
    touch /tmp/began
    start "$@" -- nvidia-driver init
    wait_for 240 ready_or_ended "$1"
    check "$1 is ready" ready_anew
}
# take_down NAME: a clean stop.
take_down() {
    container "$runtime" stop --time 30 "$1" >/dev/null
    check "$1 stops cleanly" is "$(exit_of "$1")" 0
    check "its status went with it" absent /run/nvidia/driverctr/status.json
}
# refused NAME STATUS TEXT...: it ends by itself with that status, and its log holds each text.
refused() {
    local text
    check "$1 ends with status $2" is "$(exit_of "$1")" "$2"
    for text in "${@:3}"; do check "it says: $text" said "$1" "$text"; done
}
# tries NAME [ARGUMENT...] <<'END': starts that are refused at once, one a line, in one container, since each container
# takes seconds here: STATUS|what it says && what else|shell words that end with that status and leave nothing.
tries() {
    local name=$1
    shift
    cat >/tmp/tries
    start "$name" -v /tmp/tries:/tries:ro -v /mnt/guest/tries.sh:/tries.sh:ro "$@" -- bash /tries.sh
    exit_of "$name" >/tmp/exit
    logs "$name"
    check "each of $name is refused as it should be" is "$(cat /tmp/exit)" 0
}
# sums FOLDER: write the manifests of module sets below it anew, after their files were changed.
sums() {
    python3 - "$1" <<'PYTHON'
import hashlib, json, pathlib, sys
for manifest in pathlib.Path(sys.argv[1]).rglob("manifest.json"):
    known = json.loads(manifest.read_text())
    for module in known["modules"].values():
        module["sha256"] = hashlib.sha256((manifest.parent / module["file"]).read_bytes()).hexdigest()
    manifest.write_text(json.dumps(known))
PYTHON
}
# fill_store [ARGUMENT...]: put the modules on disk into the store, in a container of $image.
fill_store() {
    start fills -v /mnt/guest/fill_store.py:/fill_store.py:ro "$@" -- python3 /fill_store.py
    check "the store is filled" is "$(exit_of fills)" 0
    logs fills
    remove fills
}
# remove NAME...: by force, as an eviction without grace does.
remove() { container "$runtime" rm --force "${missing[@]}" "$@" >/dev/null; }

# story NAME, commands by `show`, told: what is between is a block of docs/troubleshooting.md (`python -m harness stories`).
story() { printf '\n@@@ %s\n' "$1"; }
told() { printf '@@@\n'; }
# show COMMAND [WORDS]: the command as a user gives it, and what it says; WORDS are what is run instead, where names or
# mounts are those of this machine.
show() {
    printf '$ %s\n' "$1"
    eval "${2:-$1}" 2>&1
}

persistenced() { pgrep -f '^nvidia-persistenced' || true; }
driver_mounts() { awk '$5 ~ "^/run/nvidia/."' /proc/self/mountinfo; }
nothing_left() {
    check "no module of the driver is loaded" fails grep -E '^nvidia' /proc/modules
    check "nothing is mounted below /run/nvidia" is "$(driver_mounts)" ""
    # A start that failed leaves the reason for whoever asks; nothing else may stay.
    grep -q '"phase": "failed"' /run/nvidia/driverctr/status.json 2>/dev/null && rm /run/nvidia/driverctr/status.json
    check "no file is left in /run/nvidia" is "$(find /run/nvidia -type f | tr '\n' ' ')" ""
    check "the firmware search path is blank" is "$(cat /sys/module/firmware_class/parameters/path)" ""
    check "no daemon is left" is "$(persistenced)" ""
}

# scenario TITLE: end the one before, and tell whether this one is wanted.
scenario() {
    end_scenario
    [[ $1 =~ ${CASES:-} ]] || return
    title=$1 scenario_failures=$failures
    tell "== $title"
}

end_scenario() {
    [ -n "$title" ] || return 0
    local name
    if [ "$failures" -gt "$scenario_failures" ]; then
        for name in "${containers[@]}"; do
            echo "-- log of $name"
            logs "$name" | tail -n 40
        done
    fi
    [ ${#containers[@]} = 0 ] || remove "${containers[@]}" 2>/dev/null
    containers=() title=''
    nothing_left >/tmp/left
    grep -A 20 '^FAILED' /tmp/left && sweep
    rm -f $orders/*
}

# Make the host clean by hand, so that one scenario's failure is not the next one's.
sweep() {
    local pid
    for pid in $(persistenced); do kill -KILL "$pid"; done
    driver_mounts | awk '{ print $5 }' | tac | xargs -r -n 1 umount -l 2>/dev/null
    rmmod nvidia_peermem nvidia_modeset nvidia_uvm nvidia 2>/dev/null
    find /run/nvidia -type f -delete
    printf '\0' >/sys/module/firmware_class/parameters/path
}

finish() {
    end_scenario
    tell "$failures failures"
    exit $((failures > 0))
}
