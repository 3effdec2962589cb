#!/bin/sh
# Have the modules for one kernel in the image: those of a folder, which were made elsewhere, or built of its source.
set -eu

given=$1
if [ -z "${KERNEL_VERSION:-}" ]; then
    echo "KERNEL_VERSION is empty: give --build-arg KERNEL_VERSION=<uname -r of the nodes>. For an image that builds on" \
        "the node, say --target driver: Docker's classic builder makes every stage before the last." >&2
    exit 1
fi
if [ -n "$(find "$given" -name '*.ko*' -print -quit)" ]; then
    exec nvidia-driver build --kernel "$KERNEL_VERSION" --modules "$given"
fi
exec nvidia-driver build --kernel "$KERNEL_VERSION"
