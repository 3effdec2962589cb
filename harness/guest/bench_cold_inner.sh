# In a privileged container, with the kernel's headers and a module source at hand: a start that builds, against make and
# the same start's bare commands; one JSON line each.
set -eE
trap 'echo "bench: line $LINENO failed: $BASH_COMMAND" >&2; tail -n 30 /tmp/log >&2' ERR
. /bench/bench_bare.sh
source=$1
release=$(uname -r)
# modprobe reads a tree of their own: the mounted one is read-only.
load_ours() {
    tree=/tmp/root/lib/modules/$release
    mkdir -p "$tree/updates"
    cp "/lib/modules/$release"/modules.{order,builtin,builtin.modinfo} "$tree"
    cp /tmp/tree/*.ko "$tree/updates"
    depmod --basedir /tmp/root "$release"
    for module in nvidia nvidia-uvm nvidia-modeset; do modprobe --dirname /tmp/root $module; done
}

# The image's own source stays as it is in both.
make_bare() {
    cp -a "$source" /tmp/tree
    make -C /tmp/tree -j"$(nproc)" "KERNEL_UNAME=$release" IGNORE_CC_MISMATCH=1 modules >/tmp/log 2>&1
    for module in nvidia nvidia-uvm nvidia-modeset; do strip --strip-debug /tmp/tree/$module.ko; done
}

# Neither is to pay for the other's first look at the headers. Ours comes second: it puts a module tree of its own in the
# place of what is mounted.
find "/lib/modules/$release/build/" "/lib/modules/$release/source/" -type f -exec cat {} + >/dev/null
a=$(now)
make_bare
c=$(now)
bare_up
b=$(now)
tell cold-bare "$a" "$b"
tell cold-make "$a" "$c"
bare_down
a=$(now)
MODULES_DIR=/tmp/built nvidia-driver init >/tmp/log 2>&1 &
driver=$!
until_there $marker
b=$(now)
tell cold "$a" "$b"
grep ' done in ' /tmp/log
kill -TERM $driver
wait $driver
