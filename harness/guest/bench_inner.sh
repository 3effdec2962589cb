# In a privileged container: starts and stops of ours against the same bare commands, interleaved; one JSON line each.
set -eE
trap 'echo "bench: line $LINENO failed: $BASH_COMMAND" >&2; tail -n 30 /tmp/log >&2' ERR
rounds=${1:-2}
idle=${2:-60}
store=/tmp/lib/store
. /bench/bench_bare.sh
load_ours() { for module in nvidia nvidia-uvm nvidia-modeset; do modprobe $module; done; }

switches() { awk '/ctxt_switches/ { n += $2 } END { print n }' /proc/"$1"/task/*/status; }

ours_up() {
    nvidia-driver init >>/tmp/log 2>&1 &
    driver=$!
    until_there $marker
}

# As after a reboot: the modules come from the store, where every file of them is hashed.
stored_up() {
    STORE_DIR=$store MODULES_DIR=/tmp/none ours_up
}

hashed_up() {
    sha256sum $store/entries/*/*.ko >/dev/null
    bare_up
}

# The driver serves already, as after a crash of ours: its marker is a new one.
warm_up() {
    touch /tmp/began
    nvidia-driver init >>/tmp/log 2>&1 &
    driver=$!
    until [ $marker -nt /tmp/began ]; do read -r -t 0.05 -u 9 _ || true; done
}

checked_up() {
    kill -0 "$(cat /run/nvidia-persistenced/nvidia-persistenced.pid)"
    export_root
}

ours_down() {
    kill -TERM "$driver"
    wait "$driver"
}

# timed WHAT: run it and tell how long it took.
timed() {
    local a b
    a=$(now)
    "${1/-/_}"
    b=$(now)
    tell "$1" "$a" "$b"
    read -r -t 2 -u 9 _ || true
}
operations() { dmesg | grep -ci nvidia || true; }

STORE_DIR=$store python3 /bench/bench_fill.py
ours_up
read -r -t 2 -u 9 _ || true
ours_down
for _ in $(seq "$rounds"); do
    timed ours-up
    timed ours-down
    timed bare-up
    timed bare-down
    timed stored-up
    ours_down
    timed hashed-up
    bare_down
    ours_up
    read -r -t 5 -u 9 _ || true
    kill -KILL "$driver"
    before=$(operations)
    timed warm-up
    tell operations "$before" "$(operations)"
    kill -KILL "$driver"
    timed checked-up
    umount -l -R /run/nvidia/driver
    warm_up
    read -r -t 2 -u 9 _ || true
    ours_down
    a=$(now)
    PYTHONPATH=/opt/driverctr/lib python3 -c 'import driverctr.cli'
    b=$(now)
    tell import "$a" "$b"
done
ours_up
read -r -t 5 -u 9 _ || true
a=$(switches "$driver")
read -r -t "$idle" -u 9 _ || true
b=$(switches "$driver")
tell wake-ups "$a" "$b"
awk '/VmRSS/ { printf "{\"what\": \"rss-mb\", \"seconds\": %.1f}\n", $2 / 1024 }' /proc/"$driver"/status
ours_down
