#!/bin/sh
# Install driverctr and what it needs from a folder of wheels: install-program.sh WHEELS
set -eu

lib=/opt/driverctr/lib
python=/usr/libexec/driverctr/python3

# pip runs from its own wheel, and takes of the wheels those that fit this Python.
"$python" "$(echo "$1"/pip-*.whl)/pip" install --no-index --find-links "$1" --no-compile --no-cache-dir \
    --root-user-action ignore --target "$lib" driverctr
# What `rich` has to colour the source of programs and to show Markdown, and what cffi compiles C with: nothing of it is
# imported to draw a bar or to check a signature, and it would be a third of all that is installed here.
( cd "$lib" && rm -rf bin pygments* markdown_it* mdurl* cffi cffi-* pycparser* ./*.dist-info/sboms )
find "$lib" -name '*.so' -exec strip --strip-unneeded '{}' +
# The bytecode is never checked against its source: nothing edits an image in place.
"$python" -m compileall -q --invalidation-mode unchecked-hash "$lib"
