# What a start takes of a shell: the same acts as ours, bare. Sourced in a privileged container; `load_ours` loads the
# driver's modules.
marker=/run/nvidia/validations/.driver-ctr-ready
mkfifo /tmp/never
exec 9<>/tmp/never

now() { echo "$EPOCHREALTIME"; }
tell() { awk -v what="$1" -v a="$2" -v b="$3" 'BEGIN { printf "{\"what\": \"%s\", \"seconds\": %.3f}\n", what, b - a }'; }
until_there() { until [ -e "$1" ]; do read -r -t 0.05 -u 9 _ || true; done; }

bare_up() {
    for module in ipmi_msghandler ipmi_devintf video drm; do modprobe $module; done
    load_ours
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
