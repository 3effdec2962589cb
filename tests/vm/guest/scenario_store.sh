# shellcheck shell=bash
# The module store: built once, found by every later start, checked before it is loaded, returned to after a failure.
. /mnt/guest/scenario.sh
set_up "$1"
mkdir -p /tmp/host /tmp/drivers
common+=(-v /tmp/host:/var/lib/driverctr -v /tmp/drivers:/drivers:ro)
store=/tmp/host/store

entry() { echo $store/entries/*; }
status_says() { python3 -c 'import json,sys; d=json.load(open("/run/nvidia/driverctr/status.json")); assert eval(sys.argv[1]), d' "$1"; }
parameter_is() { grep -qx "EnableStreamMemOPs: $1" /proc/driver/nvidia/params; }
not_on_disk=(-e MODULES_DIR=/tmp/none)

if scenario "what is in the store is taken from it, whatever else is missing"; then
    echo 'NVreg_EnableStreamMemOPs=1' >/tmp/drivers/nvidia.conf
    fill_store
    check "one entry" test -f "$(entry)/key.json" -a -f "$(entry)/nvidia.ko"
    check "nothing half-made is left" is "$(ls $store/stage)" ""
    # As after a reboot: no module, no headers, no compiler, no network.
    bring_up later "${not_on_disk[@]}" -v /dev/null:/usr/bin/gcc-12:ro -v /dev/null:/usr/bin/make:ro
    check "the next start takes it from there" said later "take the modules from the store"
    check "and builds nothing" unsaid later "build:"
    check "what serves is pinned" grep -q '"NVreg_EnableStreamMemOPs=1"' $store/pins.json
    check "the kernel has that build" is "$(tail -c 20 /sys/module/nvidia/notes/.note.gnu.build-id | od -An -tx1 | tr -d ' \n')" \
        "$(python3 -c 'import json,sys; print(json.load(open(sys.argv[1]))["modules"]["nvidia"]["build_id"])' "$(entry)/manifest.json")"
    take_down later
    nothing_left
fi

if scenario "a plan tells what is true, how long it takes by the starts before, and what blocks"; then
    [ -d $store/entries ] || fill_store
    rm -f $store/history.jsonl
    echo 'NVreg_EnableStreamMemOPs=0' >/tmp/drivers/nvidia.conf
    start unknown "${not_on_disk[@]}" -- driverctr plan
    check "without a start before" is "$(exit_of unknown)" 0
    check "it is not known how long it takes" said unknown "(how long it takes is not known: no start of this kind"
    for name in one two; do
        bring_up $name "${not_on_disk[@]}"
        take_down $name
    done
    start planned "${not_on_disk[@]}" -- driverctr plan
    check "after two" is "$(exit_of planned)" 0
    logs planned
    check "it is" said planned "s, by the median of 2 starts here that had the modules from the store"
    check "nobody uses what is not there" said planned "nobody uses the driver"
    bring_up three "${not_on_disk[@]}"
    sleep 7711 </run/nvidia/driver/dev/nvidiactl &
    user=$!
    plan=$(inside three driverctr plan)
    check "what is loaded is kept, whoever uses it" grep -F "nothing: what is loaded stays, whoever uses it" <<<"$plan"
    check "who that is stands on top" grep -F "the driver is in use: nvidia has refcnt" <<<"$plan"
    echo 'NVreg_EnableStreamMemOPs=1' >/tmp/drivers/nvidia.conf
    plan=$(inside three env PARAMETERS_WHEN_BUSY=refuse driverctr plan)
    echo "$plan"
    check "what blocks is told at the end" grep -F "Blocked (in-use): the driver is in use: " <<<"$plan"
    check "with what to do" is "$(tail -n 1 <<<"$plan")" "  Free the GPU: kill $user"
    kill $user
    wait $user 2>/dev/null
    take_down three
fi

if scenario "an entry built against other headers than the host's is left for a build, and taken where none can be"; then
    rm $store/pins.json
    cp "$(entry)/provenance.json" /tmp/provenance
    tries judges "${not_on_disk[@]}" <<'END'
0|hit: |driverctr store why
10|differs in symvers_sha256: wanted |sed -i '/symvers_sha256/s/: ".*"/: "7777"/' /var/lib/driverctr/store/entries/*/provenance.json; driverctr store why
0|set aside: store, since |nvidia-driver plan
0|build the modules from the image's source|nvidia-driver plan
END
    bring_up last "${not_on_disk[@]}" --tmpfs /var/tmp:size=1m
    check "it is taken with a warning" said last "WARNING $(basename "$(entry)" | head -c 12) "
    check "there was no room for a build" said last "take the modules from the store"
    check "the kernel's word counts from now on" inside last driverctr store why
    take_down last
    cp /tmp/provenance "$(entry)/provenance.json"
    nothing_left
fi

# a_disk NAME OPTION...: a filesystem of its own with a copy of the store on it.
a_disk() {
    mkdir -p "/tmp/disks/$1" && mount "${@:2}" "/tmp/disks/$1" && cp -r $store "/tmp/disks/$1"
}

if scenario "disks that are full, read-only, foreign, or lack what a store needs"; then
    a_disk read-only -t tmpfs disk
    mount -o remount,ro /tmp/disks/read-only
    a_disk full -t tmpfs -o size=512k disk
    rm /tmp/disks/full/store/pins.json
    head -c 1M /dev/zero >/tmp/disks/full/filler 2>/dev/null
    truncate -s 64M /tmp/fat
    busybox mkdosfs /tmp/fat
    modprobe -a loop vfat
    a_disk fat -o loop /tmp/fat
    mkdir /run/vm-host/job/disk
    a_disk nine --bind /run/vm-host/job/disk
    # What lies in its lower layer cannot be renamed.
    mkdir -p /tmp/lower /tmp/upper /tmp/work
    cp -r $store /tmp/lower
    printf x | dd of="$(echo /tmp/lower/store/entries/*/nvidia.ko)" bs=1 seek=1000 conv=notrunc status=none
    mkdir -p /tmp/disks/layers
    mount -t overlay -o lowerdir=/tmp/lower,upperdir=/tmp/upper,workdir=/tmp/work overlay /tmp/disks/layers
    a_disk owned -t tmpfs disk
    chown 1000 /tmp/disks/owned/store
    a_disk shared -t tmpfs disk
    chmod g+w /tmp/disks/shared/store/entries
    tries disks -v /tmp/disks:/disks "${not_on_disk[@]}" <<'END'
0|exported: |driverctr store export /exported
15|No space left on device|STORE_DIR=/disks/full/store driverctr store import /exported
43|Read-only file system|STORE_DIR=/disks/read-only/store driverctr store import /exported
0|1 entries are whole|STORE_DIR=/disks/read-only/store driverctr store verify
0|imported: |rm -r /disks/fat/store; STORE_DIR=/disks/fat/store driverctr store import /exported
0|1 entries are whole|STORE_DIR=/disks/fat/store driverctr store verify
0|imported: |rm -r /disks/nine/store; STORE_DIR=/disks/nine/store driverctr store import /exported
0|1 entries are whole|STORE_DIR=/disks/nine/store driverctr store verify
43|Permission denied|mkdir /sys/fs/cgroup/disk; STORE_DIR=/sys/fs/cgroup/disk/store driverctr store import /exported
43|Invalid cross-device link|STORE_DIR=/disks/layers/store driverctr store import /exported
43|/disks/owned/store belongs to user 1000, not to user 0|STORE_DIR=/disks/owned/store driverctr store list
0|set aside: store, since /disks/owned/store belongs to user 1000|STORE_DIR=/disks/owned/store nvidia-driver plan
43|/disks/shared/store/entries can be written by others than its owner (mode 0775)|STORE_DIR=/disks/shared/store driverctr store verify
0|set aside: store, since /disks/shared/store/entries can be written by others|STORE_DIR=/disks/shared/store nvidia-driver plan
END
    for name in full:"No space left on device" read-only:"Read-only file system"; do
        bring_up "${name%%:*}" -v "/tmp/disks/${name%%:*}:/disk" -e STORE_DIR=/disk/store "${not_on_disk[@]}"
        check "what is there is taken" said "${name%%:*}" "take the modules from the store"
        check "what cannot be written is said" said "${name%%:*}" "what serves is not pinned: /disk/store/pins.json cannot be written: ${name#*:}"
        take_down "${name%%:*}"
    done
    umount /tmp/disks/*
    nothing_left
fi

if scenario "pushed by one node, fetched and believed by a cold one"; then
    mkdir -p /tmp/keys /tmp/remote
    start pushes -v /tmp/keys:/keys -v /tmp/remote:/remote -- sh -ec \
        'driverctr store keygen /keys | tail -n 1 >/keys/told; driverctr store push --private-key /keys/private.pem --to /remote'
    check "a pair of keys, and an entry is pushed" is "$(exit_of pushes)" 0
    python3 -m http.server --directory /tmp/remote 8080 >/tmp/http.log 2>&1 &
    mv $store /tmp/warm
    remote=(-e REMOTE_URL=http://127.0.0.1:8080 -e "REMOTE_PUBLIC_KEY=$(cat /tmp/keys/told)")
    bring_up cold "${not_on_disk[@]}" "${remote[@]}" -v /dev/null:/usr/bin/gcc-12:ro
    check "it fetched them" said cold "fetch the modules from http://127.0.0.1:8080"
    check "and built nothing" unsaid cold "build:"
    check "they are in its store now" grep -q http://127.0.0.1:8080 "$(entry)/provenance.json"
    take_down cold
    kill $!
    rm -r $store
    mv /tmp/warm $store
    nothing_left
fi

if scenario "exported by one node, imported into a store on the host of another, and taken by its start"; then
    on_host=(-e STORE_ON_HOST=true -e STORE_DIR=/srv/driverctr/store)
    imported=/srv/driverctr/store/entries/$(basename "$(entry)")
    mkdir /tmp/export
    tries moves -v /tmp/export:/export <<'END'
0|exported: |driverctr store export /export/modules
0|imported: |STORE_ON_HOST=true STORE_DIR=/srv/driverctr/store driverctr store import /export/modules
END
    check "and lies on the host itself, whole" diff -r "$(entry)" "$imported"
    bring_up takes "${not_on_disk[@]}" "${on_host[@]}" -v /dev/null:/usr/bin/gcc-12:ro
    check "the start takes it from there" said takes "take the modules from the store"
    check "and builds nothing" unsaid takes "build:"
    check "what serves is pinned there" grep -q "\"$driver\"" /srv/driverctr/store/pins.json
    check "a store on the host outlives the container" unsaid takes "goes with this container"
    take_down takes
    rm -r /srv/driverctr /tmp/export
    nothing_left
fi

if scenario "what does not load gives way to what served last, also after a reboot"; then
    echo 'fail_init=19' >/tmp/drivers/nvidia.conf
    bring_up rolled "${not_on_disk[@]}"
    check "it says why" status_says 'any("rolled back" in r and "modprobe nvidia failed" in r for r in d["degraded"])'
    check "the former parameters are back" parameter_is 1
    take_down rolled
    start forgets -- driverctr unload
    check "unload forgets what failed" is "$(exit_of forgets)" 0
    rm /tmp/drivers/nvidia.conf
    nothing_left
fi

if scenario "a damaged entry is set aside and named"; then
    printf x | dd of="$(entry)/nvidia-uvm.ko" bs=1 seek=1000 conv=notrunc status=none
    bring_up damaged
    check "it is named" said damaged "nvidia-uvm.ko is not the file its manifest describes"
    check "it is set aside" test -n "$(ls $store/aside)" -a -z "$(ls $store/entries)"
    check "another source serves" said damaged "take the modules on disk"
    take_down damaged
    nothing_left
fi

if scenario "a store that others can write is not believed"; then
    chmod 777 $store
    bring_up untrusted
    check "ready without it" said untrusted "take the modules on disk"
    inside untrusted driverctr plan >/tmp/plan
    check "and the reason is in the plan" grep -F "set aside: store, since" /tmp/plan
    take_down untrusted
    nothing_left
fi

finish
