# shellcheck shell=bash
# Before the next kernel boots: a kernel installed while the driver serves, with the host's hook and without it.
. /mnt/guest/scenario.sh
set_up "$1"
next=6.1.0-99-amd64
version='#1 SMP PREEMPT_DYNAMIC Debian 6.1.999-1 (2026-12-24)'
store=/tmp/lib/store
hook=/tmp/postinst.d/update-nvidia-driver
mkdir -p /tmp/lib /tmp/postinst.d
common+=(-v /tmp/lib:/var/lib/driverctr -v /tmp/postinst.d:/run/kernel/postinst.d)
common+=(-v /mnt/stand-in:$stand_in_source:ro -e VERIFY_DEPTH=devices)

# install_kernel: what a package manager does for a kernel and its headers; here they are the running kernel's by
# another name. Its modules come last, as the host's signal that it is there.
install_kernel() {
    local headers=/usr/src/linux-headers-$next
    cp -a "/usr/src/linux-headers-$(uname -r)" $headers
    sed -i "s/$(uname -r)/$next/" $headers/include/generated/utsrelease.h $headers/include/config/kernel.release
    echo "#define UTS_VERSION \"$version\"" >$headers/include/generated/utsversion.h
    mkdir -p /boot /lib/modules/$next/kernel
    python3 - "/boot/vmlinuz-$next" "$next (debian-kernel@lists.debian.org) $version" <<'PYTHON'
import struct, sys
head = bytearray(0x3400)
head[0x202:0x206] = b"HdrS"
struct.pack_into("<H", head, 0x20E, 0x3200)
open(sys.argv[1], "wb").write(bytes(head) + sys.argv[2].encode() + b"\0")
PYTHON
    ln -s $headers /lib/modules/$next/build
    cp "/lib/modules/$(uname -r)/modules.builtin" /lib/modules/$next/
}
# A mount below /run/nvidia is a hint: the look comes now, and not within a minute.
look_now() { mkdir -p /run/nvidia/hint && mount -t tmpfs hint /run/nvidia/hint && umount /run/nvidia/hint && rmdir /run/nvidia/hint; }
entries() { find $store/entries -mindepth 1 -maxdepth 1; }
ready_in_store() { [ -n "$(entries)" ] && inside "$1" driverctr status | grep -F "$next: ready for its next boot, store: "; }
holds() { grep -F -- "$2" "$1"; }

compilers() { pgrep -d ' ' '^(make|cc1|gcc.*|nvidia-driver)$' || true; }
nobody_builds() { is "$(compilers)" ""; }
# same_group PID COMMAND: the process that the command names is in its control groups.
same_group() { local pid; for _ in $(seq 100); do pid=$("$2") && cat "/proc/$pid/cgroup" >/tmp/group && break; done; diff /tmp/group "/proc/$1/cgroup"; }
a_compiler() { pgrep -n cc1; }
last_at_the_disk() { is "$(for pid in $(pgrep '^(make|cc1)$'); do ionice --pid "$pid"; done | sort -u)" idle; }
all_at_lowest() { is "$(ps -o nice= -C make,cc1 | tr -d ' ' | sort -u)" 19; }

if scenario "a kernel is installed while the driver serves; a stop ends the build for it"; then
    bring_up stopped
    # It is placed once the driver is ready, which the marker told us at the same moment.
    check "the hook is in its place" wait_for 20 test -x $hook
    inside stopped driverctr status >/tmp/status
    check "no kernel is to come" fails holds /tmp/status $next
    install_kernel
    look_now
    check "it is seen without the hook" wait_for 60 said stopped "kernel $next is installed on the host"
    check "its modules are being built" wait_for 240 a_compiler
    check "at the lowest priority" wait_for 60 all_at_lowest
    check "of the disk too" wait_for 60 last_at_the_disk
    inside stopped driverctr status >/tmp/status
    check "the status says so" holds /tmp/status "$next: not ready, they are being built now"
    check "the driver is ready meanwhile" ready
    take_down stopped
    logs stopped >/tmp/log
    check "it gave the build up" holds /tmp/log "the build for kernel $next is given up"
    check "nobody builds any more" is "$(compilers)" ""
    check "nothing half-made is in the store" is "$(find $store/entries $store/stage -mindepth 1)" ""
    check "the hook went with the container" absent $hook
    nothing_left
fi

if scenario "the host's hook builds in the container's bounds, and no longer than it lives"; then
    [ -e /lib/modules/$next ] || install_kernel
    bring_up hooked -e PREBUILD=false
    check "the hook is in its place" wait_for 20 test -x $hook
    holder=$(cat /run/nvidia/nvidia-driver.pid)
    $hook $next /boot/vmlinuz-$next >/tmp/hook 2>&1 &
    check "it builds" wait_for 240 a_compiler
    check "in the container's control group" same_group "$holder" a_compiler
    check "at the lowest priority" wait_for 60 all_at_lowest
    remove hooked
    check "the build ends when the container does" wait_for 10 nobody_builds
    check "the hook says that it was not built" wait_for 60 holds /tmp/hook "were not built (exit status"
    cat /tmp/hook
    check "and left nothing half-made in the store" is "$(find $store/entries -mindepth 1)" ""
    sweep
fi

if scenario "the modules of a kernel are there before it boots"; then
    [ -e /lib/modules/$next ] || install_kernel
    bring_up serving
    loads=$(stat -c '%n %i' /sys/module/nvidia)
    check "its modules are in the store" wait_for 600 ready_in_store serving
    check "for the kernel as it is installed" holds "$(entries)/key.json" "$version"
    check "pinned until it has run" holds $store/pins.json "\"$next\": \"$(basename "$(entries)")\""
    check "built for it" grep -q "vermagic=$next " "$(entries)/nvidia.ko"
    check "the driver that serves was left alone" is "$(stat -c '%n %i' /sys/module/nvidia)" "$loads"
    check "and is ready" ready
    check "the hook finds them there" $hook $next /boot/vmlinuz-$next
    cat /tmp/check
    logs serving >/tmp/log
    check "the container's log has the hook's words too" is "$(grep -c "modules for kernel $next are ready in" /tmp/log)" 2
    check "nothing was built twice" is "$(grep -c 'build: done' /tmp/log)" 1
    take_down serving
    nothing_left
fi

finish
