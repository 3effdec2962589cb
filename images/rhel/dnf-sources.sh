#!/bin/sh
# Decide where dnf fetches from: the *.repo files in a folder, with the keys beside them, take the place of the base
# image's own; where it has none, those stay. Usage: dnf-sources.sh FOLDER
set -eu

listed=/etc/yum.repos.d

mkdir -p "$listed" /usr/share/driverctr
for file in "$1"/*.repo; do
    [ -f "$file" ] || continue
    rm -f "$listed"/*.repo
    cp -- "$1"/* "$listed/"
    break
done

# Which files are the image's own, and not a user's: DEFAULT_REPOSITORIES=false leaves exactly these out.
for file in "$listed"/*.repo; do
    [ ! -f "$file" ] || printf '%s\n' "$file"
done > /usr/share/driverctr/default-repositories
