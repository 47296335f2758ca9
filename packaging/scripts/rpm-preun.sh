# Before the last version's files go: dotd ends, and its XDP programs leave the interfaces. rpm calls it with sh; $1 is the
# number of versions that stay.
if [ "$1" -eq 0 ]; then
    if [ -d /run/systemd/system ]; then systemctl disable --now dotd.service; fi
    /usr/bin/dotd xdp detach || echo "dotd: XDP was not detached (above)" >&2
    if [ -d /run/systemd/system ]; then systemctl stop run-dotd.bpf.mount || :; fi
fi
exit 0
