#!/bin/sh
# Lay out NVIDIA's files of $DRIVER_VERSION below a folder, from where $DRIVER_SOURCE says: driver-root.sh FOLDER
#
# runfile: a *.run beside this script, else the one of $BASE_URL; $RUNFILE_SHA256, if given, is what it must be.
# packages: packages-root.sh beside this script, which each distribution has of its own.
set -eu

root=$1
here=$(dirname -- "$0")

die() {
    printf '%s\n' "$*" >&2
    exit 1
}

# The classic builder knows no TARGETARCH; the tools of this stage are of the architecture that the image gets.
machine=$(uname -m)
case ${TARGETARCH:-}:$machine in
:* | amd64:x86_64 | arm64:aarch64) ;;
*) die "TARGETARCH=$TARGETARCH, but this stage runs on $machine: build with a platform of TARGETARCH (amd64 or arm64)" ;;
esac

case $DRIVER_SOURCE in
runfile)
    set -- --version "$DRIVER_VERSION"
    [ -z "${RUNFILE_SHA256:-}" ] || set -- "$@" --sha256 "$RUNFILE_SHA256"
    found=
    for file in "$here"/*.run; do
        [ -f "$file" ] || continue
        [ -z "$found" ] || die "two run-files in the build context, ${found##*/} and ${file##*/}: name one by RUNFILE"
        found=$file
    done
    if [ -n "$found" ]; then set -- "$@" --file "$found"; else set -- "$@" --base-url "$BASE_URL"; fi
    exec /usr/libexec/driverctr/python3 "$here/runfile_root.py" "$@" "$root"
    ;;
packages)
    exec sh "$here/packages-root.sh" "$root"
    ;;
*)
    die "DRIVER_SOURCE=$DRIVER_SOURCE is not known; it is runfile or packages"
    ;;
esac
