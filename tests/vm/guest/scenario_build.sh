# Builds without the host's pids: one that is, with what README says to mount, and builds that cannot be: each refused
# with its own code and reason, and the host as found.
. /mnt/guest/scenario.sh
set_up "$1"
# Without the host's pids its headers are used where they are mounted, in place of a copy that takes half a minute here.
common=(-v /run/nvidia:/run/nvidia:rshared -v "$orders:$orders:ro" -e MODULES_DIR=/tmp/none -e RETRY=never)
release=$(uname -r)
headers=(-v /lib/modules:/lib/modules:ro)
kbuild=$(readlink -f /usr/src/linux-kbuild-*)
for folder in /usr/src/linux-headers-* "$kbuild"; do
    headers+=(-v "$folder:$folder:ro")
done
cp -r /mnt/stand-in /tmp/source

if scenario "built beside the mounted headers"; then
    mkdir -p /tmp/host
    bring_up alone -v /tmp/host:/var/lib/driverctr -v /lib/modules:/lib/modules:ro -v /usr/src:/usr/src:ro -v "$kbuild:$kbuild:ro" \
        -v "/tmp/source:$stand_in_source:ro"
    check "the store has what was built" test -f "$(echo /tmp/host/store/entries/*/build.log)"
    check "and nothing half-made" is "$(ls /tmp/host/store/stage)" ""
    check "with the host's headers" said alone "headers: $release from our own root /usr/src/linux-headers-$release"
    check "they are found still" inside alone python3 -ISc "import sys; sys.path.insert(0, '/opt/driverctr/lib')
from driverctr import node, paths; print(found := node.headers_place(paths.Paths(), '$release')); sys.exit(not found)"
    check "the driver root has the image's source" test -e /run/nvidia/driver/usr/src/nvidia-$driver/kernel/Kbuild
    take_down alone
    nothing_left
fi

if scenario "compilers, sources and disks that do not serve"; then
    tries unfit "${headers[@]}" -v "/tmp/source:$stand_in_source" <<'END'
12|which asks for gcc-12; here is no gcc at all|mkdir /tmp/gcc; mv /usr/bin/gcc /usr/bin/gcc-12 /tmp/gcc; nvidia-driver init
12|which asks for gcc-12; here is gcc-11 (11)|printf '#!/bin/sh\necho 11\n' >/usr/bin/gcc-11; chmod +x /usr/bin/gcc-11; nvidia-driver init
15|GB free in /var/tmp, and a build takes 1.0 GB|mv /tmp/gcc/* /usr/bin; mount -t tmpfs -o size=1m small /var/tmp; nvidia-driver init; s=$?; umount /var/tmp; exit $s
15|no space left for the build in /var/tmp|mount -t tmpfs -o size=2g,nr_inodes=18 small /var/tmp; nvidia-driver init; s=$?; umount /var/tmp; exit $s
15|no space left on device in /var/tmp|mount -t tmpfs -o size=2g,nr_inodes=36 small /var/tmp; nvidia-driver init; s=$?; umount /var/tmp; exit $s
13|nvidia-main.c:1: #error on purpose|sed -i '1i #error on purpose' $source/nvidia-main.c; nvidia-driver init; s=$?; sed -i 1d $source/nvidia-main.c; exit $s
13|has no Makefile|mv $source/Makefile /tmp; nvidia-driver init; s=$?; mv /tmp/Makefile $source; exit $s
END
    nothing_left
fi

if scenario "headers that cannot be had"; then
    start none -- nvidia-driver init
    refused none 14 "no headers for kernel $release" "our own root: /lib/modules/$release/build" "not from repositories: " \
        "cannot be fetched" "Install the headers on the host"
    nothing_left
fi

finish
