# After unpacking: the user, its folders, and what the config of this machine is worth. rpm calls it with sh; $1 is
# the number of versions that are installed now.
@take-over.sh@
systemd-sysusers dotd.conf
[ -d /etc/dotd/tls ] || install -d -m 0750 -o root -g dotd /etc/dotd/tls
[ -d /var/lib/dotd ] || install -d -m 0750 -o dotd -g dotd /var/lib/dotd
[ -d /run/dotd ] || install -d -m 0755 -o dotd -g dotd /run/dotd
if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
if ! /usr/bin/dotd check; then
    echo "dotd: the config has mistakes (above); dotd was not restarted. Mend it, then: systemctl restart dotd" >&2
elif [ "$1" -gt 1 ] && [ -d /run/systemd/system ]; then
    take_over
fi
exit 0
