# shellcheck shell=bash
# A new version that does not load: the former one returns whole where its userspace was kept, else that is said first.
. /mnt/guest/scenario.sh
set_up "$1"
new=$driver old=470.223.02
libraries=usr/lib/x86_64-linux-gnu
root=/run/nvidia/driver
mkdir -p /tmp/host /tmp/drivers
common+=(-v /tmp/host:/var/lib/driverctr -v /tmp/drivers:/drivers:ro)
store=/tmp/host/store

# version_of FOLDER VERSION: a root of the stand-in driver in that version, its userspace listed, as an image; the name
# of the image is left in $image.
version_of() {
    local name=${1##*/}
    mkdir -p "/tmp/upper-$name" "/tmp/work-$name"
    lay_over "$1" "upperdir=/tmp/upper-$name,workdir=/tmp/work-$name"
    [ "$2" = "$new" ] || become "$1" "$2"
    python3 /mnt/guest/userspace.py "$1" "$2"
    image=$1
    [ "$runtime" != docker ] || docker_image "$1" "$name" "$2"
}
# become FOLDER VERSION: no file of the former version is left in it.
become() {
    local library=$1/$libraries/libnvidia-ml.so source=usr/src/nvidia-$2/kernel
    cp "$library.$new" /tmp/library
    rm -rf "$1/$libraries"/{libnvidia,libcuda,libnvcuvid,libEGL_nvidia,libGL*_nvidia}* "$1"/usr/lib/firmware/nvidia/* "$1"/usr/src/nvidia-*
    cp /tmp/library "$library.$2"
    ln -s "libnvidia-ml.so.$2" "$library.1"
    mkdir -p "$1/usr/lib/firmware/nvidia/$2" "$1/$source"
    echo "GSP of $2" >"$1/usr/lib/firmware/nvidia/$2/gsp_ga10x.bin"
    # A program tells by its length which version it is of.
    echo "of $2" >>"$1/usr/bin/nvidia-persistenced"
    python3 - "$1/usr/share/driverctr/image.json" "$2" "/$source" <<'PYTHON'
import json, pathlib, sys
file, version, source = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3]
known = json.loads(file.read_text())
known["driver_version"] = version
known["sources"] = [{"type": "proprietary", "version": version, "path": source, "sha256": "47" * 32}]
file.write_text(json.dumps(known))
PYTHON
}
version_of /images/old $old
old_image=$image
version_of /images/new "$new"
image=$old_image fill_store -v /mnt/former:/former:ro -e MODULES_DIR=/former

loads() { stat -c '%n %i' /sys/module/nvidia /sys/module/nvidia_uvm /sys/module/nvidia_modeset | tr '\n' ' '; }
status_says() { python3 -c 'import json,sys; d=json.load(open("/run/nvidia/driverctr/status.json")); assert eval(sys.argv[1]), d' "$1"; }
# of_version VERSION: modules and userspace in the driver root are of one version, and nothing there of another.
of_version() {
    local other=$new
    [ "$1" != "$new" ] || other=$old
    check "the kernel has $1" is "$(cat /sys/module/nvidia/version)" "$1"
    check "libnvidia-ml in the driver root too" is "$(readlink $root/$libraries/libnvidia-ml.so.1)" "libnvidia-ml.so.$1"
    check "it is there" test -s "$root/$libraries/libnvidia-ml.so.$1"
    check "no library of $other" is "$(ls $root/$libraries | grep -F "$other")" ""
    check "the library cache knows it" grep -q libnvidia-ml.so.1 $root/etc/ld.so.cache
    check "firmware of $1 alone" is "$(find $root/lib/firmware/nvidia/ -name '*.bin' -printf '%P\n' | cut -d/ -f1 | sort -u)" "$1"
    check "nvidia-smi of the driver root agrees with the driver" chroot $root nvidia-smi
    check "so does that of the container" inside "$2" nvidia-smi
    check "the daemon runs" test -n "$(persistenced)"
}
daemon_length() { stat -L -c %s "/proc/$(persistenced)/exe"; }
does_not_load() { echo 'fail_init=19' >/tmp/drivers/nvidia.conf; }
loads_again() { rm -f /tmp/drivers/nvidia.conf; }
keep=(-e KEEP_USERSPACE=true)

if scenario "without the setting it is said beforehand, and at the end"; then
    image=$old_image bring_up former
    of_version $old former
    take_down former
    start plans -- driverctr plan
    check "plan" is "$(exit_of plans)" 0
    check "it warns" said plans "Warning: if $new does not load, rollback is impossible: no userspace of $old"
    does_not_load
    start alone -- nvidia-driver init
    refused alone 36 "rollback impossible: no userspace of $old" "modprobe nvidia failed"
    check "it is not ready" fails ready
    loads_again
    nothing_left
fi

if scenario "with it the former version returns whole"; then
    image=$old_image bring_up kept "${keep[@]}" -e DRIVER_CONFIG_DIGEST=12
    check "its userspace is kept" wait_for 120 said kept "is kept for a rollback"
    image=$old_image start lists -- driverctr store list
    check "the store can be listed" is "$(exit_of lists)" 0
    check "with its size" said lists "userspace of $old: "
    length=$(daemon_length)
    container "$runtime" kill kept >/dev/null
    remove kept
    does_not_load
    bring_up rolled "${keep[@]}" -e DRIVER_CONFIG_DIGEST=13
    story rolled-back
    show "docker logs nvidia-driver 2>&1 | grep -E 'WARNING|ERROR|ready;'" "logs rolled | grep -E 'WARNING|ERROR|ready;'"
    show "docker exec nvidia-driver driverctr status | grep -E '^(phase|ready|driver|degraded):'" \
        "inside rolled driverctr status | grep -E '^(phase|ready|driver|degraded):'"
    told
    of_version $old rolled
    check "the daemon is the former one's" is "$(daemon_length)" "$length"
    check "it says why" status_says 'any("rolled back" in r and "470.223.02" in r and "535.309.01" in r and "modprobe nvidia failed" in r for r in d["degraded"])'
    check "the status tells the version that serves" status_says 'd["driver_version"] == "470.223.02"'
    check "the operator's digest is not said of it" absent /run/nvidia/nvidia-driver.state
    umount -l $root
    check "the driver root is exported again" wait_for 60 test -e $root/usr/bin/nvidia-smi
    of_version $old rolled
    before=$(loads)
    container "$runtime" kill rolled >/dev/null
    remove rolled
    check "without its container the driver root is still whole" chroot $root nvidia-smi
    bring_up once-more "${keep[@]}"
    check "what failed is not tried again in this boot" is "$(loads)" "$before"
    check "it says so" said once-more "degraded: rolled back"
    of_version $old once-more
    take_down once-more
    start forgets -- driverctr unload
    check "unload forgets what failed" is "$(exit_of forgets)" 0
    nothing_left
fi

if scenario "SIGKILL around the step that puts the former userspace in place of ours"; then
    start around -v /mnt/guest/kill_at.py:/test/kill_at.py:ro -v /tmp/drivers:/asked \
        -- python3 /test/kill_at.py userspace
    wait_for 480 ended around
    check "each next start ended ready and whole, and left nothing at its stop" is "$(exit_of around)" 0
    logs around
    check "three were killed" is "$(logs around | grep -c '^ok: killed')" 3
    nothing_left
fi

if scenario "as after a reboot, and then a new version that loads"; then
    does_not_load
    bring_up rolled-cold "${keep[@]}"
    of_version $old rolled-cold
    check "it was not loaded before" said rolled-cold "nothing: no module of the driver is loaded"
    take_down rolled-cold
    start forgets -- driverctr unload
    check "unload forgets what failed" is "$(exit_of forgets)" 0
    loads_again
    bring_up newer
    of_version "$new" newer
    take_down newer
    nothing_left
fi

if scenario "what was kept and is damaged is no way back"; then
    file=$(find $store/userspace/files -type f -size -2 | head -n 1)
    printf 'X' | dd of="$file" conv=notrunc status=none
    does_not_load
    start damaged -- nvidia-driver init
    refused damaged 36 "modprobe nvidia failed" "rollback impossible: " "that was listed"
    start later -- driverctr plan
    check "plan" is "$(exit_of later)" 0
    check "it is not promised again" said later "rollback is impossible: no userspace of $old"
    start forgets -- driverctr unload
    check "unload forgets what failed" is "$(exit_of forgets)" 0
    loads_again
    nothing_left
fi

build_id_of() { python3 -c 'import json,sys; print(json.load(open(sys.argv[1]))["modules"]["nvidia"]["build_id"])' "$1/manifest.json"; }
loaded_build_id() { tail -c 20 /sys/module/nvidia/notes/.note.gnu.build-id | od -An -tx1 | tr -d ' \n'; }

if scenario "another build of the same version that does not load gives way to the one that served"; then
    loads_again
    rm -rf $store
    not_on_disk=(-e MODULES_DIR=/tmp/none)
    fill_store
    bring_up served "${not_on_disk[@]}" -e DRIVER_CONFIG_DIGEST=21
    entry=$(echo $store/entries/*)
    served=$(build_id_of "$entry")
    check "it is the build of the store" is "$(loaded_build_id)" "$served"
    check "the operator's digest is said" is "$(cat /run/nvidia/nvidia-driver.state)" 21
    container "$runtime" kill served >/dev/null
    remove served
    # Of another source of that version, whose core module fails by itself.
    sed -E 's/("sha256": ")[0-9a-f]{64}/\1'"$(printf '48%.0s' {1..32})/" \
        /images/new/usr/share/driverctr/image.json >/tmp/image.json
    described=(-v /tmp/image.json:/usr/share/driverctr/image.json:ro)
    fill_store "${described[@]}" -v /mnt/broken:/broken:ro -e MODULES_DIR=/broken
    bring_up rebuilt "${not_on_disk[@]}" "${described[@]}" -e DRIVER_CONFIG_DIGEST=22
    other=$(find $store/entries -mindepth 1 -maxdepth 1 ! -path "$entry")
    check "there is another build" fails is "$(build_id_of "$other")" "$served"
    check "which did not load" said rebuilt "modprobe nvidia failed"
    check "the one that served is back" is "$(loaded_build_id)" "$served"
    of_version "$new" rebuilt
    wanted=${other##*/}
    check "it names both builds" status_says "any('rolled back' in r and '${served:0:12}' in r and '${wanted:0:12}' in r for r in d['degraded'])"
    check "the operator's digest is not said of it" absent /run/nvidia/nvidia-driver.state
    before=$(loads)
    container "$runtime" kill rebuilt >/dev/null
    remove rebuilt
    bring_up kept-on "${not_on_disk[@]}" "${described[@]}" -e DRIVER_CONFIG_DIGEST=22
    check "the next start keeps it" is "$(loads)" "$before"
    check "and builds nothing" unsaid kept-on "build:"
    check "nor says the digest" absent /run/nvidia/nvidia-driver.state
    take_down kept-on
    start forgets -- driverctr unload
    check "unload forgets what failed" is "$(exit_of forgets)" 0
    nothing_left
fi

finish
