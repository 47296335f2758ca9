#!/bin/sh
# After unpacking: the user, its folders, and what the config of this machine is worth. dpkg calls it.
set -e

@take-over.sh@

[ "$1" = configure ] || exit 0

if command -v systemd-sysusers >/dev/null; then
    systemd-sysusers dotd.conf
elif ! getent passwd dotd >/dev/null; then
    useradd --system --user-group --home-dir /var/lib/dotd --no-create-home --shell /usr/sbin/nologin dotd
fi
# An operator's own mode stays.
[ -d /etc/dotd/tls ] || install -d -m 0750 -o root -g dotd /etc/dotd/tls
[ -d /var/lib/dotd ] || install -d -m 0750 -o dotd -g dotd /var/lib/dotd
[ -d /run/dotd ] || install -d -m 0755 -o dotd -g dotd /run/dotd

if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi

# A mistake is the operator's to mend, and no reason to leave the package half installed: what runs, runs on.
if ! /usr/bin/dotd check; then
    echo "dotd: the config has mistakes (above); dotd was not restarted. Mend it, then: systemctl restart dotd" >&2
elif [ -z "$2" ]; then
    echo "dotd: edit /etc/dotd/dotd.toml, then start it: systemctl enable --now dotd"
elif [ -d /run/systemd/system ]; then
    take_over
fi
