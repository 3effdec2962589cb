#!/bin/sh
# Have Canonical's signed modules for $KERNEL_VERSION in a folder, if $MODULES_SOURCE says so: signed-modules.sh FOLDER
set -eu

mkdir -p "$1"
case $MODULES_SOURCE in
built) exit 0 ;;
signed) ;;
*)
    echo "MODULES_SOURCE=$MODULES_SOURCE is not known; it is built or signed" >&2
    exit 1
    ;;
esac
folder=$1
set -- "$DRIVER_VERSION" "$KERNEL_VERSION" "$folder"
[ "$KERNEL_MODULE_TYPE" != open ] || set -- --open "$@"
apt-get update --error-on=any
exec /usr/libexec/driverctr/python3 "$(dirname -- "$0")/signed_modules.py" "$@"
