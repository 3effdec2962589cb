#!/bin/sh
# Have the modules of a precompiled kmod package for $KERNEL_VERSION in a folder, if $MODULES_SOURCE says so:
# kmod-modules.sh FOLDER
set -eu

mkdir -p "$1"
case $MODULES_SOURCE in
built) exit 0 ;;
kmod) ;;
*)
    echo "MODULES_SOURCE=$MODULES_SOURCE is not known; it is built or kmod" >&2
    exit 1
    ;;
esac
exec /usr/libexec/driverctr/python3 "$(dirname -- "$0")/kmod_modules.py" --type "$KERNEL_MODULE_TYPE" \
    "$DRIVER_VERSION" "$KERNEL_VERSION" "$1"
