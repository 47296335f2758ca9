# After unpacking: the user, its folders, and what the config of this machine is worth. rpm calls it with sh; $1 is
# the number of versions that are installed now.
systemd-sysusers dotd.conf
[ -d /etc/dotd/tls ] || install -d -m 0750 -o root -g dotd /etc/dotd/tls
[ -d /var/lib/dotd ] || install -d -m 0750 -o dotd -g dotd /var/lib/dotd
[ -d /run/dotd ] || install -d -m 0755 -o dotd -g dotd /run/dotd
if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
if ! /usr/bin/dotd check; then
    echo "dotd: the config has mistakes (above); dotd was not restarted. Mend it, then: systemctl restart dotd" >&2
elif [ "$1" -gt 1 ] && [ -d /run/systemd/system ]; then
    # No connection is refused. A build that cannot take over from the one that runs is restarted; one that fails for another
    # reason would fail at a restart too, and the old one continues to serve.
    if systemctl --quiet is-active dotd.service; then
        if said=$(dotd upgrade 2>&1); then
            echo "dotd: $said"
        else
            echo "$said" >&2
            case $said in
            *'restart dotd instead'* | *'is not running'*) systemctl try-restart dotd.service ;;
            *) echo "dotd: the old build continues to serve (reason above). Repair that, then run: dotd upgrade" >&2 ;;
            esac
        fi
    fi
fi
exit 0
