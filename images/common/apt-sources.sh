#!/bin/sh
# Decide where apt fetches from: $APT_SOURCES holds a whole sources.list; empty keeps the base image's own sources and
# gives them the components $COMPONENTS, in which NVIDIA's packages and the kernels' headers lie.
set -eu

listed=/etc/apt/sources.list.d

if [ -n "${APT_SOURCES:-}" ]; then
    rm -f /etc/apt/sources.list "$listed"/*.list "$listed"/*.sources
    printf '%s\n' "$APT_SOURCES" > /etc/apt/sources.list
else
    for file in /etc/apt/sources.list "$listed"/*.list; do
        [ -f "$file" ] || continue
        sed -i -E "s/^(deb(-src)? +(\[[^]]*\] +)?[^ ]+ +[^ ]+) +.*/\1 $COMPONENTS/" "$file"
        # Ubuntu 22.04 has a line for each component: what they are now is one line, said once.
        awk '!/^deb/ || !seen[$0]++' "$file" > "$file.once"
        cat "$file.once" > "$file"
        rm "$file.once"
    done
    for file in "$listed"/*.sources; do
        [ -f "$file" ] || continue
        sed -i -E "s/^Components:.*/Components: $COMPONENTS/" "$file"
    done
fi

# Which files are the image's own, and not a user's: DEFAULT_REPOSITORIES=false leaves exactly these out.
mkdir -p /usr/share/driverctr
for file in /etc/apt/sources.list "$listed"/*.list "$listed"/*.sources; do
    [ ! -f "$file" ] || printf '%s\n' "$file"
done > /usr/share/driverctr/default-repositories

# Kernel headers come through apt at run time: their documentation is as unwelcome as that of the image.
# Copyright files stay: the licences ask for it.
cat > /etc/dpkg/dpkg.cfg.d/driverctr <<'CONFIG'
path-exclude=/usr/share/doc/*
path-include=/usr/share/doc/*/copyright
path-exclude=/usr/share/man/*
path-exclude=/usr/share/info/*
path-exclude=/usr/share/locale/*
path-exclude=/usr/share/lintian/*
path-exclude=/usr/share/bug/*
CONFIG
cat > /etc/apt/apt.conf.d/driverctr <<'CONFIG'
APT::Install-Recommends "false";
APT::Install-Suggests "false";
Acquire::Languages "none";
Acquire::Retries "3";
CONFIG
