#!/bin/sh
# Have the modules for one kernel in the image: those of a folder, which were made elsewhere, or built of its source.
set -eu

given=$1
if [ -z "${KERNEL_VERSION:-}" ]; then
    echo "KERNEL_VERSION is empty: an image of target precompiled needs --build-arg KERNEL_VERSION=<uname -r of the nodes>" >&2
    # The classic builder makes every stage, whatever is wanted; an image made so refuses every node.
    mkdir -p /opt/driverctr/modules
    [ -z "${TARGETPLATFORM:-}" ]
    exit
fi
if [ -n "$(find "$given" -name '*.ko*' -print -quit)" ]; then
    exec nvidia-driver build --kernel "$KERNEL_VERSION" --modules "$given"
fi
exec nvidia-driver build --kernel "$KERNEL_VERSION"
