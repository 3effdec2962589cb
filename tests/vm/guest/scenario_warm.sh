# shellcheck shell=bash
# Starts beside a driver that is there already: what is right stays untouched, whoever loaded it and whoever uses it.
. /mnt/guest/scenario.sh
set_up "$1"
device=/run/nvidia/driver/dev/nvidiactl
user=''

# What changes whenever a module is loaded, even by the same name at the same address.
loads() { stat -c '%n %i' /sys/module/nvidia /sys/module/nvidia_uvm /sys/module/nvidia_modeset | tr '\n' ' '; }
one_tree() { is "$(awk '$5 == "/run/nvidia/driver"' /proc/self/mountinfo | wc -l)" 1; }
use() { sleep 7611 <$device & user=$!; }
release() { kill "$user" && wait "$user" 2>/dev/null; user=''; }
status_says() { python3 -c 'import json,sys; d=json.load(open("/run/nvidia/driverctr/status.json")); assert eval(sys.argv[1]), d' "$1"; }
parameter_is() { grep -qx "EnableStreamMemOPs: $1" /proc/driver/nvidia/params; }
index_is_there() { chroot /run/nvidia/driver modprobe -n nvidia-uvm; }
# again NAME [ARGUMENT...]: a start after a killed one; the marker of that one goes first.
again() {
    before=$(loads)
    bring_up "$@"
}
mkdir -p /tmp/drivers
common+=(-v /tmp/drivers:/drivers:ro)

if scenario "killed while somebody uses the driver: the next start touches no module"; then
    rm -f /tmp/drivers/*
    bring_up first -e DRIVER_CONFIG_DIGEST=12
    use
    # A program that runs from the old root goes on.
    chroot /run/nvidia/driver sleep 7612 &
    chrooted=$!
    python3 -c '
import os, sys, time
while not os.path.exists("/tmp/watched"):
    if not os.path.exists("/run/nvidia/driver/usr/bin/nvidia-smi"):
        print("gap", flush=True)
    time.sleep(0.001)
' >/tmp/gaps &
    watcher=$!
    remove first
    check "the digest survives the kill" is "$(cat /run/nvidia/nvidia-driver.state)" 12
    again second -e DRIVER_CONFIG_DIGEST=12
    check "it keeps what is loaded" said second "keep the modules that are loaded"
    check "no module was loaded or unloaded" is "$(loads)" "$before"
    check "the user lives" kill -0 "$user"
    check "so does who runs from the old root" kill -0 $chrooted
    check "one driver root" one_tree
    check "the digest is still there" is "$(cat /run/nvidia/nvidia-driver.state)" 12
    check "the daemon runs" test -n "$(persistenced)"
    check "modprobe works in the driver root" wait_for 60 index_is_there
    touch /tmp/watched
    wait $watcher
    check "the driver root was never empty" is "$(wc -l </tmp/gaps)" 0
    rm /tmp/watched
    kill $chrooted
    release
    take_down second
    nothing_left
fi

if scenario "kept at the stop, and one module short"; then
    bring_up kept -e ON_STOP=keep
    container "$runtime" stop --time 30 kept >/dev/null
    check "it ends well" is "$(exit_of kept)" 0
    check "the modules stay" test -e /sys/module/nvidia_uvm
    rmmod nvidia_modeset
    before=$(stat -c %i /sys/module/nvidia)
    bring_up after
    check "only what is missing is loaded" said after "load nvidia-modeset"
    check "it is there" test -e /sys/module/nvidia_modeset/refcnt
    check "the core was not touched" is "$(stat -c %i /sys/module/nvidia)" "$before"
    take_down after
    nothing_left
fi

if scenario "changed parameters wait for who uses the driver"; then
    echo 'NVreg_EnableStreamMemOPs=0' >/tmp/drivers/nvidia.conf
    bring_up former
    use
    remove former
    echo 'NVreg_EnableStreamMemOPs=1' >/tmp/drivers/nvidia.conf
    start strict -e PARAMETERS_WHEN_BUSY=refuse -- nvidia-driver init
    refused strict 6 "the driver is in use" "nothing was touched"
    again busy
    check "no module was touched" is "$(loads)" "$before"
    check "ready, and it says what is pending and for whom" status_says \
        'any("pending reload" in r and "NVreg_EnableStreamMemOPs: asked 1, is 0" in r and "sleep 7611" in r for r in d["degraded"])'
    check "the old parameter serves" parameter_is 0
    release
    check "applied when idle, within a minute" wait_for 150 parameter_is 1
    check "ready anew" wait_for 120 status_says 'd["phase"] == "ready" and not d["degraded"]'
    check "the marker is there" wait_for 10 ready
    take_down busy
    nothing_left
fi

if scenario "changed parameters, and nobody there"; then
    echo 'NVreg_EnableStreamMemOPs=1' >/tmp/drivers/nvidia.conf
    bring_up before-change
    remove before-change
    rm /tmp/drivers/nvidia.conf
    echo 'values[mig.mode.current]=Enabled' >$orders/smi
    bring_up reloads
    check "what the reload lost is said" said reloads "lost with the modules: GPU 0001:01:00.0: MIG mode Enabled"
    check "it says why" said reloads "NVreg_EnableStreamMemOPs: asked no longer, was loaded with 1"
    check "what is no longer asked has its default" parameter_is 0
    take_down reloads
    nothing_left
fi

if scenario "parameters with which the driver does not load"; then
    echo 'NVreg_EnableStreamMemOPs=1' >/tmp/drivers/nvidia.conf
    bring_up served
    remove served
    echo 'fail_init=19' >/tmp/drivers/nvidia.conf
    bring_up rolled
    check "it says why" status_says 'any("rolled back" in r and "modprobe nvidia failed" in r for r in d["degraded"])'
    check "the former parameters are back" parameter_is 1
    remove rolled
    again once-more
    check "what failed is not tried again in this boot" is "$(loads)" "$before"
    check "it says so" said once-more "degraded: rolled back"
    take_down once-more
    start forgets -- driverctr unload
    check "unload forgets it" is "$(exit_of forgets)" 0
    nothing_left
fi

finish
