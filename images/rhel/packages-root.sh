#!/bin/sh
# Lay out the driver from the distribution's packages: packages-root.sh FOLDER
set -eu

printf '%s\n' "DRIVER_SOURCE=packages: this image takes no driver from RPM packages; use DRIVER_SOURCE=runfile" >&2
exit 1
