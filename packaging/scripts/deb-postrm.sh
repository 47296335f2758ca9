#!/bin/sh
# After the files went: config, keys and state stay until the package is purged. dpkg calls it.
set -e

if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
if [ "$1" = remove ] || [ "$1" = purge ]; then rmdir /run/dotd.bpf 2>/dev/null || :; fi
if [ "$1" = purge ]; then
    rm -rf /etc/dotd /var/lib/dotd /var/lib/dotd-keeper /run/dotd
fi
