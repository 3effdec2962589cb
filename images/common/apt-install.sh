#!/bin/sh
# Install packages and leave nothing of apt's behind that only the installation needed.
set -eu

export DEBIAN_FRONTEND=noninteractive
apt-get update --error-on=any
apt-get install --yes "$@"
apt-get clean
rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/cache/debconf/*-old /var/lib/dpkg/*-old \
    /var/cache/ldconfig/aux-cache /var/log/apt /var/log/dpkg.log /var/log/alternatives.log
