#!/bin/sh
# Lay out the driver from the distribution's packages: packages-root.sh FOLDER
set -eu

apt-get update --error-on=any
exec /usr/libexec/driverctr/python3 "$(dirname -- "$0")/nvidia_root.py" "$DRIVER_VERSION" "$1"
