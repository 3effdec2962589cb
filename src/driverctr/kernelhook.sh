#!/bin/sh
# Written by driverctr, the NVIDIA driver container that runs on this host, and removed when that stops.
#
# The package manager calls it after a kernel was installed (update-nvidia-driver RELEASE [IMAGE]): the driver container
# then builds its modules for that kernel, so that the next boot finds them. No installation fails because of it.
pid_file=/run/nvidia/nvidia-driver.pid
proc=/proc
cgroups=/sys/fs/cgroup
release=${1-}

say() { printf 'update-nvidia-driver: %s\n' "$*" >&2; }

leave() {
    say "$*"
    exit 0
}

# The process that holds the lock on the pid file, by the kernel's word (proc_locks(5)): what stands in the file may be
# a number of long ago, which an innocent has now, or one of the container's own PID namespace.
holder() {
    identity=$(stat -c '%d %i' "$pid_file") || return
    device=${identity% *}
    lock=$(printf '%02x:%02x:%s' $((device >> 8 & 0xfff)) $((device & 0xff | device >> 12 & 0xfff00)) "${identity#* }")
    while read -r _ kind _ _ pid file _; do
        [ "$kind $file" != "FLOCK $lock" ] || printf '%s\n' "$pid"
    done <"$proc/locks"
}

# Enter the control groups of the container, in each hierarchy (cgroups(7); 0 is who writes): what bounds the container
# then bounds the build, and what ends all of the container ends it.
join_groups() {
    while IFS=: read -r _ controllers group; do
        hierarchy=$cgroups/${controllers#name=}
        [ -n "$controllers" ] || [ ! -d "$cgroups/unified" ] || hierarchy=$cgroups/unified
        echo 0 >"$hierarchy$group/cgroup.procs"
    done <"$proc/$pid/cgroup"
}

[ -n "$release" ] || leave 'called without a kernel release: nothing is built'
[ -e "$pid_file" ] || leave "no driver container runs: the next one builds its modules for kernel $release when it starts"
pid=$(holder)
case $pid in
'' | *[!0-9]* | 0)
    leave "no driver container holds $pid_file: the next one builds its modules for kernel $release when it starts"
    ;;
esac
command=$(tr '\0' '\n' <"$proc/$pid/cmdline")
printf '%s\n' "$command" | grep -qE '^(.*/)?(nvidia-driver|driverctr)$' ||
    leave "pid $pid holds $pid_file and is no driver container ($(echo "$command" | tr '\n' ' ')): nothing is built"
command -v nsenter >/dev/null || leave 'nsenter (util-linux) is missing: nothing is built'

say "building the NVIDIA driver's modules for kernel $release in the driver container (pid $pid)"
# In its mount and PID namespace, with its settings and nothing of the package manager's environment. The program ends
# when the container does, and says itself where the modules are.
if (
    join_groups || say "not all bounds of the container hold for the build"
    exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$(command -v nsenter)" \
        -t "$pid" -m -p -- nvidia-driver update --like-running --kernel "$release" </dev/null >&2
); then
    say "done for kernel $release"
else
    say "ERROR: the NVIDIA driver's modules for kernel $release were not built (exit status $?), see above;" \
        'the driver container tries again while it runs, or builds them when that kernel has booted'
fi
exit 0
