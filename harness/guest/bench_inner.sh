# In a privileged container: starts and stops of ours against the same bare commands, interleaved; one JSON line each.
set -eE
trap 'echo "bench: line $LINENO failed: $BASH_COMMAND" >&2; tail -n 30 /tmp/log >&2' ERR
rounds=${1:-2}
idle=${2:-60}
marker=/run/nvidia/validations/.driver-ctr-ready
store=/tmp/lib/store
mkfifo /tmp/never
exec 9<>/tmp/never

now() { echo "$EPOCHREALTIME"; }
tell() { awk -v what="$1" -v a="$2" -v b="$3" 'BEGIN { printf "{\"what\": \"%s\", \"seconds\": %.3f}\n", what, b - a }'; }
until_there() { until [ -e "$1" ]; do read -r -t 0.05 -u 9 _ || true; done; }
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

bare_up() {
    for module in ipmi_msghandler ipmi_devintf video drm nvidia nvidia-uvm nvidia-modeset; do modprobe $module; done
    uvm=$(awk '$2 == "nvidia-uvm" {print $1}' /proc/devices)
    caps=$(awk '$2 == "nvidia-caps" {print $1}' /proc/devices)
    mkdir -p /dev/nvidia-caps
    rm -f /dev/nvidiactl /dev/nvidia0 /dev/nvidia-modeset /dev/nvidia-uvm /dev/nvidia-uvm-tools /dev/nvidia-caps/*
    mknod -m 666 /dev/nvidiactl c 195 255
    mknod -m 666 /dev/nvidia0 c 195 0
    mknod -m 666 /dev/nvidia-modeset c 195 254
    mknod -m 666 /dev/nvidia-uvm c "$uvm" 0
    mknod -m 666 /dev/nvidia-uvm-tools c "$uvm" 1
    mknod -m 400 /dev/nvidia-caps/nvidia-cap1 c "$caps" 1
    mknod -m 444 /dev/nvidia-caps/nvidia-cap2 c "$caps" 2
    export_root
    echo -n /run/nvidia/driver/lib/firmware >/sys/module/firmware_class/parameters/path
    nvidia-persistenced --persistence-mode
}

export_root() {
    mkdir -p /mnt/stage /run/nvidia/driver
    mount --bind / /mnt/stage
    mount --make-private /mnt/stage
    for folder in proc sys dev; do mount --rbind /$folder /mnt/stage/$folder; done
    mount --rbind /mnt/stage /run/nvidia/driver
    umount -l /mnt/stage
}

bare_down() {
    kill "$(cat /run/nvidia-persistenced/nvidia-persistenced.pid)"
    # It lets go of the GPU only as it ends: nvidia-uvm and nvidia-modeset are the two that may still hold nvidia.
    until [ "$(</sys/module/nvidia/refcnt)" -le 2 ]; do read -r -t 0.02 -u 9 _ || true; done
    rmmod nvidia_modeset nvidia_uvm nvidia
    umount -l -R /run/nvidia/driver
    printf '\0' >/sys/module/firmware_class/parameters/path
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
