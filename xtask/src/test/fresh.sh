#!/bin/sh
# Runs the test command where nothing is prepared: a Debian 12 of its own, as debootstrap makes it, with what README asks a
# newcomer for (git, gcc, libc6-dev, ca-certificates, rustup's cargo) and no more.
#
# Usage: fresh.sh ROOT REPOSITORY RUSTUP_HOME CARGO_HOME [words for `cargo xtask test`]
# Runs in a mount and a PID namespace of its own, so that its mounts and what it starts end with it.
# Leaves ROOT for its caller to remove. The new / is a plain folder on purpose, and no bpffs and no tracefs are mounted.
set -eu
root=$1 repository=$2 rustup=$3 cargo=$4
shift 4
home=/root

debootstrap --variant=minbase --include=git,gcc,libc6-dev,ca-certificates bookworm "$root" http://deb.debian.org/debian
cat >"$root/etc/apt/sources.list" <<'SOURCES'
deb http://deb.debian.org/debian bookworm main
deb http://deb.debian.org/debian bookworm-updates main
deb http://deb.debian.org/debian-security bookworm-security main
SOURCES
# The way to the network is this machine's: names, and the authorities that its operator trusts.
cp /etc/resolv.conf /etc/hosts "$root/etc/"
for authority in /usr/local/share/ca-certificates/*.crt; do
    if [ -e "$authority" ]; then cp "$authority" "$root/usr/local/share/ca-certificates/"; fi
done

mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
# Every init mounts it; script(1), by which a test works `dotd top`, needs a terminal.
mount -t devpts -o ptmxmode=0666 devpts "$root/dev/pts"
mkdir -p "$root$home/.rustup" "$root$home/.cargo/bin"
mount --bind -o ro "$rustup" "$root$home/.rustup"
mount --bind -o ro "$cargo/bin" "$root$home/.cargo/bin"
git clone -q --no-hardlinks "$repository" "$root/dotd"
echo "fresh: $(cat "$root/etc/debian_version"), $(git -C "$root/dotd" log -1 --format='%h %s')"

exec chroot "$root" /usr/bin/env -i HOME="$home" TERM="${TERM:-dumb}" LANG=C.UTF-8 \
    PATH="$home/.cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" \
    sh -c 'update-ca-certificates >/dev/null && cd /dotd && cargo xtask test "$@"; status=$?
           du -sh /dotd/target "$HOME/.cargo/registry"; exit $status' fresh "$@"
