#!/bin/sh
# Install driverctr and what it needs from a folder of wheels: install-program.sh WHEELS
set -eu

lib=/opt/driverctr/lib
python=/usr/libexec/driverctr/python3

# pip runs from its own wheel, and takes of the wheels those that fit this Python.
"$python" "$(echo "$1"/pip-*.whl)/pip" install --no-index --find-links "$1" --no-compile --no-cache-dir \
    --root-user-action ignore --target "$lib" driverctr
rm -rf /opt/driverctr/lib/bin
find "$lib" -name '*.so' -exec strip --strip-unneeded '{}' +
# The bytecode is never checked against its source: nothing edits an image in place.
"$python" -m compileall -q --invalidation-mode unchecked-hash "$lib"
