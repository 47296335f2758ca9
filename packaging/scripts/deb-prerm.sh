#!/bin/sh
# Before the files go: dotd ends, and its XDP programs leave the interfaces. An upgrade goes on serving. dpkg calls it.
set -e

[ "$1" = remove ] || exit 0

if [ -d /run/systemd/system ]; then systemctl disable --now dotd.service; fi
# What a dotd that crashed left attached; another network namespace's is not ours to see.
/usr/bin/dotd xdp detach || echo "dotd: XDP was not detached (above)" >&2
if [ -d /run/systemd/system ]; then systemctl stop run-dotd.bpf.mount || :; fi
