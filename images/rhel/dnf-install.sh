#!/bin/sh
# Install packages and leave nothing of dnf's behind: dnf-install.sh PACKAGE... [-- WHERE_OFFERED...]
#
# What comes after -- is left out, and named, where the repositories do not have it.
set -eu

options='--assumeyes --setopt=install_weak_deps=False --setopt=tsflags=nodocs --setopt=keepcache=False'
needed=
while [ "$#" -gt 0 ] && [ "$1" != -- ]; do
    needed="$needed $1"
    shift
done
[ "$#" -eq 0 ] || shift
for package in "$@"; do
    # shellcheck disable=SC2086 # options, one word each
    if [ -n "$(dnf $options --quiet repoquery --available "$package" || true)" ]; then
        needed="$needed $package"
    else
        printf '%s: not offered, left out\n' "$package" >&2
    fi
done

# shellcheck disable=SC2086 # options and package names, one word each
dnf $options install $needed
dnf clean all
rm -rf /var/cache/dnf /var/cache/yum /var/log/dnf* /var/log/yum* /var/log/hawkey.log /var/log/rhsm /var/lib/dnf/repos \
    /var/cache/ldconfig/aux-cache /var/tmp/dnf-*
