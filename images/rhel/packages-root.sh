#!/bin/sh
# Lay out the driver from NVIDIA's rpm packages: packages-root.sh FOLDER
set -eu

exec /usr/libexec/driverctr/python3 "$(dirname -- "$0")/rhel_root.py" "$DRIVER_VERSION" "$1"
