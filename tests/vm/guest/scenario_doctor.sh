# What tells others of the driver: doctor and its bundle, and labels for Node Feature Discovery.
. /mnt/guest/scenario.sh
set_up "$1"

features=/etc/kubernetes/node-feature-discovery/features.d
mkdir -p $features
# An older image does not tell its CUDA: this one does.
python3 - /images/driver/usr/share/driverctr/image.json >/tmp/image.json <<'PYTHON'
import json, sys
print(json.dumps({**json.load(open(sys.argv[1])), "cuda_version": "12.2"}))
PYTHON
common+=(-v $features:$features)
described=(-v /tmp/image.json:/usr/share/driverctr/image.json:ro)

labelled() { grep -qx "$1" $features/driverctr; }
unlabelled() { is "$(ls -A $features)" ""; }
# nfd: what its worker would read, as often as it could: no file but ours, and that one whole.
nfd() {
    python3 - $features <<'PYTHON'
import os, sys, time
folder, seen = sys.argv[1], 0
while not os.path.exists("/tmp/nfd.end"):
    for name in os.listdir(folder):
        if name.startswith("."):
            continue
        try:
            text = open(os.path.join(folder, name)).read()
        except FileNotFoundError:
            continue
        seen += 1
        lines = text.splitlines()
        assert name == "driverctr" and text.endswith("\n") and lines[1].startswith("# +expiry-time="), (name, text)
        assert len(lines) == 17 and all("=" in line for line in lines[1:]), text
    time.sleep(0.002)
print(seen)
assert seen
PYTHON
}

# members FILE: names in a bundle; member FILE NAME: one of them.
members() { tar -tzf "$1" | cut -d/ -f2; }
member() { tar -xzOf "$1" --wildcards "*/$2"; }
has() { member "$1" "$2" | grep -F -- "$3"; }
lacks_secrets() { fails sh -c "tar -xzOf '$1' | grep -aE 'hunter2|C0ntr4ct'"; }
whole() { is "$(members "$1" | wc -l)" 31 && has "$1" index.txt "A bundle of"; }
secret=(-e https_proxy=http://joe:hunter2proxy@proxy.example:1 -e UBUNTU_PRO_TOKEN=C0ntr4ctT0ken42)

if scenario "labels while the driver serves"; then
    rm -f /tmp/nfd.end
    nfd >/tmp/nfd 2>&1 &
    reader=$!
    touch $features/.driverctr.1-a.partial
    bring_up labels "${described[@]}" "${secret[@]}"
    check "version" labelled nvidia.com/cuda.driver-version.full=$driver
    check "CUDA" labelled nvidia.com/cuda.runtime-version.full=12.2
    check "kernel" labelled "feature.node.kubernetes.io/nvidia-driver.kernel=$(uname -r)"
    cat $features/driverctr
    check "nothing else is there" is "$(ls -A $features)" driverctr
    unplug_gpu
    check "a GPU that vanishes: no labels" wait_for 60 unlabelled
    plug_gpu
    check "it comes again: labels" wait_for 60 labelled nvidia.com/cuda.driver.major=535
    check "doctor" inside labels driverctr doctor
    inside labels driverctr doctor
    inside labels driverctr doctor --bundle - >/tmp/served.tar.gz
    check "a bundle of a driver that serves" whole /tmp/served.tar.gz
    member /tmp/served.tar.gz index.txt
    for part in checks.txt status.txt pci.txt kernel-log.txt modinfo.txt driver.txt mounts.txt packages.txt history.jsonl; do
        echo "-- $part" && member /tmp/served.tar.gz $part | head -n 30 | cut -c1-200
    done
    check "phase" has /tmp/served.tar.gz status-file.json '"phase": "ready"'
    check "the kernel's words" has /tmp/served.tar.gz kernel-log.txt NVRM
    check "the GPU" has /tmp/served.tar.gz pci.txt "driver nvidia"
    check "modinfo" has /tmp/served.tar.gz modinfo.txt "version:        $driver"
    check "the host's mounts" has /tmp/served.tar.gz mounts.txt "of process 1"
    check "packages" has /tmp/served.tar.gz packages.txt " kmod "
    check "settings of the container" has /tmp/served.tar.gz settings.json UBUNTU_PRO_TOKEN
    check "no secret" lacks_secrets /tmp/served.tar.gz
    take_down labels
    check "a stop takes the labels" unlabelled
    touch /tmp/nfd.end
    check "NFD saw nothing half" wait $reader
    tell "NFD read it $(cat /tmp/nfd) times"
    nothing_left
fi

if scenario "after a crash"; then
    bring_up crash "${secret[@]}"
    kill -KILL "$(cat /run/nvidia/nvidia-driver.pid)"
    check "it is dead" is "$(exit_of crash)" 137
    check "the labels are still there" labelled nvidia.com/cuda.driver.major=535
    start after -v /tmp:/out "${secret[@]}" -- driverctr doctor --bundle /out/crashed.tar.gz
    check "a bundle all the same" is "$(exit_of after)" 0
    logs after
    check "whole" whole /tmp/crashed.tar.gz
    check "what the dead one told last" has /tmp/crashed.tar.gz status-file.json '"phase": "ready"'
    check "no secret" lacks_secrets /tmp/crashed.tar.gz
    start refused -e VERIFY_DEPTH=deep -- nvidia-driver init
    refused refused 3 "VERIFY_DEPTH"
    check "a start that is refused takes the labels" unlabelled
    start away -- driverctr unload
    check "unloaded" is "$(exit_of away)" 0
    nothing_left
fi

if scenario "unload takes the labels of a driver that was kept"; then
    bring_up kept
    kill -KILL "$(cat /run/nvidia/nvidia-driver.pid)"
    exit_of kept >/dev/null
    start away -- driverctr unload
    check "unloaded" is "$(exit_of away)" 0
    check "no labels" unlabelled
    nothing_left
fi

if scenario "a bundle where much is wrong"; then
    : >/tmp/none.json
    unplug_gpu
    start bare -v /tmp:/out -v /tmp/none.json:/usr/share/driverctr/image.json:ro -e VERIFY_DEPTH=deep -- \
        setpriv --reuid 65534 --regid 65534 --clear-groups --bounding-set=-all --inh-caps=-all \
        driverctr doctor --bundle /out/bare.tar.gz
    check "no image description, no GPU, no privileges, a wrong setting" is "$(exit_of bare)" 0
    logs bare
    check "whole" whole /tmp/bare.tar.gz
    member /tmp/bare.tar.gz index.txt
    check "the setting" has /tmp/bare.tar.gz settings.json "VERIFY_DEPTH='deep' is not one of"
    check "the image" has /tmp/bare.tar.gz checks.txt "image.json is not as expected"
    check "the kernel log" has /tmp/bare.tar.gz kernel-log.txt "Operation not permitted"
    plug_gpu
fi

finish
