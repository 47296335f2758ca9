#!/bin/sh
# An operator's life with an installed dotd, step by step, on a Debian that systemd runs. Each step says on the console
#   DOTD step|NAME|ok or FAILED|what was seen
# and the next one follows whatever came of it. `cargo xtask test-install` starts this in a guest, and reads it.
exec >/dev/console 2>&1
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/run LC_ALL=C.UTF-8
config=/etc/dotd/dotd.toml
failure=

# A job of systemd's that does not end is a failure like any other: what the journal says follows it.
systemctl() { timeout 600 systemctl "$@"; }
dpkg() { timeout 600 dpkg "$@"; }

step() { name=$1; failure=; }
# want WHY COMMAND...: the step fails with WHY and the command's last line unless the command succeeds.
want() {
    why=$1; shift
    said=$("$@" 2>&1) || failure="$failure$why ($(printf %s "$said" | tail -n 1 | tr '|' '/')); "
}
refuse() {
    why=$1; shift
    if said=$("$@" 2>&1); then failure="$failure$why; "; fi
}
# done_ SEEN: the end of a step.
done_() {
    if [ -z "$failure" ]; then
        echo "DOTD step|$name|ok|$1"
    else
        echo "DOTD step|$name|FAILED|$failure$1"
        journalctl -u dotd -n 30 --no-pager -o short-monotonic
    fi
}
has() { grep -q -- "$1"; }
said_has() { printf '%s\n' "$said" | grep -q -- "$1"; }
# The answer that a client in another network namespace hears over TLS.
ask() { ip netns exec client kdig @192.0.2.1 -p 853 +tls +short +timeout=3 +retry=1 www.walk.test A | has '^192\.0\.2\.80$'; }
eventually() { for _ in $(seq 100); do if "$@" >/dev/null 2>&1; then return 0; fi; sleep 0.1; done; "$@"; }
# The same for what takes minutes.
at_last() { for _ in $(seq 300); do if "$@" >/dev/null 2>&1; then return 0; fi; sleep 1; done; "$@"; }
# The status code of a path of control.http. The end of the request does not follow it at once: a server may take that for a client that
# has gone.
http() { { printf 'GET %s HTTP/1.0\r\nhost: x\r\n\r\n' "$1"; sleep 5; } | timeout 60 /walk/busybox nc 127.0.0.1 8853 | sed -n '1s/^[^ ]* \([0-9]*\).*/\1/p'; }
is_http() { [ "$(http "$1")" = "$2" ]; }
main() { systemctl show -P MainPID dotd; }
engine() { cat /proc/"$(main)"/task/*/children; }
served_pin() { dotd status --json | sed -n 's/.*"spki_pin": *"\([^"]*\)".*/\1/p' | head -n 1; }
pin_of() { dotd pin "$1" | cut -d'"' -f2; }
serves() { [ "$(served_pin)" = "$(pin_of "$1")" ]; }
has_xdp() { ip link show dot0 | has xdp; }
lacks_xdp() { ! has_xdp; }

uptime_cs() { cut -d' ' -f1 /proc/uptime | tr -d .; }
# load COMMAND...: new connections one after another, a query each, while the command runs and a little after; says how many
# of them got no answer, and for how long at most none came. An emulated processor that verifies a BPF program leaves others
# nothing for seconds: a client that gave up after one would say that, and nothing of dotd. What a client says that hears none goes to the console.
load() {
    rm -f /run/walk.stop /run/walk.load
    (
        asked=0 lost=0 gap=0 since=
        until [ -e /run/walk.stop ]; do
            began=$(uptime_cs)
            asked=$((asked + 1))
            heard=$(ip netns exec client kdig -d @192.0.2.1 -p 853 +tls +short +timeout=5 +retry=0 www.walk.test A 2>&1)
            if printf '%s\n' "$heard" | has '^192'; then
                since=
            else
                now=$(uptime_cs)
                lost=$((lost + 1)); since=${since:-$began}
                if [ $((now - since)) -gt $gap ]; then gap=$((now - since)); fi
                printf '%s\n' "$heard" | tail -n 3 | sed "s/^/  lost, $began to $now: /"
            fi
        done
        echo "$lost of $asked new connections lost, no answer for $((gap / 100)).$((gap / 10 % 10)) s at most" >/run/walk.load
    ) &
    loader=$!
    sleep 1
    "$@"; status=$?
    sleep 3
    touch /run/walk.stop
    wait $loader
    return $status
}

ip netns add client
ip link add dot0 type veth peer name dot1 netns client
ip addr add 192.0.2.1/24 dev dot0; ip link set dot0 up
ip -n client addr add 192.0.2.2/24 dev dot1; ip -n client link set dot1 up; ip -n client link set lo up
# The archive has no times, and NSD reads no zone of 1970.
touch /etc/nsd/walk.zone
systemctl restart nsd
echo "DOTD system|$(. /etc/os-release; echo "$PRETTY_NAME")|$(uname -r)|$(systemctl --version | head -n 1)"

step install
want "dpkg -i fails" dpkg -i /walk/dotd_1.deb
printf '%s\n' "$said" | sed 's/^/  dpkg: /'
want "no user dotd" getent passwd dotd
[ "$(stat -c '%a %U:%G' /etc/dotd/tls)" = "750 root:dotd" ] || failure="${failure}/etc/dotd/tls is $(stat -c '%a %U:%G' /etc/dotd/tls); "
refuse "it was started before it was configured" systemctl is-active dotd
done_ "user dotd, /etc/dotd/tls $(stat -c '%a %U:%G' /etc/dotd/tls), not started"

step check
want "the packaged config has mistakes" dotd check
want "no page dotd(1)" man -w dotd
want "no page dotd-ban-add(1)" man -w dotd-ban-add
pages=$(man 5 dotd.toml 2>/tmp/man.errors | wc -l)
[ "$pages" -gt 200 ] || failure="${failure}dotd.toml(5) has $pages lines; "
[ -s /tmp/man.errors ] && failure="${failure}man says: $(head -n 1 /tmp/man.errors); "
want "no completions" bash -c '. /usr/share/bash-completion/completions/dotd && complete -p dotd'
done_ "dotd check accepts the packaged config; dotd.toml(5) has $pages lines"

step start
# An emulated processor beside other work may need minutes, where systemd waits 90 s.
mkdir -p /etc/systemd/system/dotd.service.d
printf '[Service]\nTimeoutStartSec=10min\n' >/etc/systemd/system/dotd.service.d/emulated.conf
systemctl daemon-reload
sed -i 's/^interfaces = .*/interfaces = ["dot0"]/' $config
want "systemctl start fails" systemctl start dotd
want "dotd status fails" dotd status
user=$(ps -o user= -p "$(engine | cut -d' ' -f1)")
[ "$user" = dotd ] || failure="${failure}the engine's user is $user; "
capabilities=$(sed -n 's/^CapEff:\t*//p' /proc/"$(engine | cut -d' ' -f1)"/status)
[ "$capabilities" = 0000000000000000 ] || failure="${failure}the engine has capabilities $capabilities; "
want "no XDP on dot0" has_xdp
capabilities_of_main=$(sed -n 's/^CapPrm:\t*//p' /proc/"$(main)"/status)
# The first package may be of an earlier build, with pins in /sys/fs/bpf and without such a unit.
place=/sys/fs/bpf
[ -e /usr/lib/systemd/system/run-dotd.bpf.mount ] && place=/run/dotd.bpf
want "no pins in $place" test -d $place/dotd
done_ "engine: user $user, capabilities $capabilities; main process: $capabilities_of_main; pins in $place; $(dotd xdp show | sed -n '/dot0/{s/  */ /g;p;q}')"

step kdig
if ! eventually ask; then
    ip netns exec client kdig -d @192.0.2.1 -p 853 +tls +timeout=3 +retry=0 www.walk.test A
    journalctl -u nsd --no-pager -n 20
fi
want "no answer" ask
done_ "kdig +tls hears the backend's answer"

step "reload, good"
sed -i 's/^idle_timeout = "30s"/idle_timeout = "31s"/' $config
want "systemctl reload fails" systemctl reload dotd
want "no answer after it" ask
done_ "systemctl reload: exit status 0"

step "reload, bad"
cp $config /run/walk.toml
echo 'idle_timout = "1s"' >>$config
refuse "systemctl reload says that all is well" systemctl reload dotd
journalctl --sync
journalctl -p err -u dotd --since -1min | has idle_timout || failure="${failure}journalctl -p err does not name the key; "
want "no answer after it" ask
cp /run/walk.toml $config
done_ "systemctl reload fails; journalctl -p err: $(journalctl -p err -u dotd -o cat | grep idle_timout | tail -n 1 | cut -c1-90)"

step renewal
archive=/etc/letsencrypt/archive/walk live=/etc/letsencrypt/live/walk
mkdir -p $archive $live; chmod 700 /etc/letsencrypt/archive /etc/letsencrypt/live
for n in 1 2; do
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 90 -subj /CN=dot.walk.test \
        -addext subjectAltName=DNS:dot.walk.test -keyout $archive/privkey$n.pem -out $archive/fullchain$n.pem 2>/dev/null
    chmod 600 $archive/privkey$n.pem
done
flip() { ln -sf $archive/privkey"$1".pem $live/privkey.pem; ln -sf $archive/fullchain"$1".pem $live/fullchain.pem; }
flip 1
sed -i "s|^# certificates = .*|certificates = [{ cert = \"$live/fullchain.pem\", key = \"$live/privkey.pem\" }]|" $config
want "check refuses them" dotd check
want "reload refuses them" systemctl reload dotd
want "the first one is not served" serves $archive/fullchain1.pem
flip 2
want "the hook's reload fails" systemctl reload dotd
want "the renewed one is not served" serves $archive/fullchain2.pem
want "no answer after it" ask
done_ "root's key of mode 0600, links of certbot's: served after the hook's reload"

step drain
want "drain fails" dotd drain
want "/health/ready is $(http /health/ready) while it is drained" is_http /health/ready 503
want "/health/live is $(http /health/live) while it is drained" is_http /health/live 200
want "no answer while it is drained" ask
want "undrain fails" dotd undrain
want "/health/ready is $(http /health/ready) after it" is_http /health/ready 200
done_ "dotd drain: /health/ready 503, /health/live 200, clients are served; dotd undrain: 200"

step "disable, enable"
want "disable fails" dotd disable
refuse "an answer while it is off" ask
dropped=$(dotd stats | sed -n 's/^ *drop dot_off *\([0-9]*\)$/\1/p')
if [ "${dropped:-0}" -eq 0 ]; then
    failure="${failure}XDP dropped no SYN; "
    dotd stats | grep -e drop -e pass | sed 's/^/  stats: /'
    dotd xdp show | sed 's/^/  xdp: /'
fi
dotd status | has '^OFF ' || failure="${failure}dotd status does not say so; "
want "enable fails" dotd enable
want "no answer after it" eventually ask
done_ "dotd disable: no answer, XDP dropped ${dropped:-0} SYN as dot_off; dotd enable: an answer"

step "restart under load"
load systemctl restart dotd || failure="systemctl restart fails; "
want "no answer after it" eventually ask
journalctl --sync
journalctl -u dotd -o cat | has 'dotd.service restarts: XDP stays attached' || failure="${failure}XDP went off meanwhile; "
done_ "$(cat /run/walk.load), XDP stayed attached"

step "restart, bad config"
cp $config /run/walk.toml
want "no ban" dotd ban add 192.0.2.78 --for 1h
echo 'idle_timout = "1s"' >>$config
want "systemctl restart fails" systemctl restart dotd
want "no answer after it" eventually ask
journalctl --sync
journalctl -p err -u dotd --since -5min -o cat | has 'idle_timout.*before this restart' || failure="${failure}the journal does not say by which config it serves; "
refuse "systemctl reload says that all is well" systemctl reload dotd
dotd ban list | has 192.0.2.78 || failure="${failure}the ban is gone; "
want "systemctl stop fails" systemctl stop dotd
refuse "a start after a stop serves by it" systemctl start dotd
want "XDP stays" lacks_xdp
cp /run/walk.toml $config
systemctl reset-failed dotd
want "systemctl start fails" systemctl start dotd
want "no answer after it" eventually ask
done_ "systemctl restart: the config and the bans from before it, and errors in the journal; systemctl start after a stop fails"

step "backend switches"
backend=$(dotd status --json | tr -d '\n' | sed -n 's/.*"backends": *\[ *{ *"name": *"\([^"]*\)".*/\1/p')
want "backend drain $backend fails" dotd backend drain "$backend"
before=$(engine)
kill -9 $before
another() { now=$(engine); [ -n "$now" ] && [ "$now" != "$before" ] && dotd status; }
want "no other engine" eventually another
dotd status | has 'dotd backend enable' || failure="${failure}a crash of the engine forgot it; "
want "backend enable fails" dotd backend enable "$backend"
done_ "dotd backend drain $backend holds over a crash of the engine"

step "upgrade under load"
load dpkg -i /walk/dotd_2.deb || failure="dpkg -i fails; "
want "no answer after it" eventually ask
want "the config was not kept" cmp -s $config /etc/dotd/dotd.toml
want "no pins in /run/dotd.bpf" test -d /run/dotd.bpf/dotd
refuse "pins stay in /sys/fs/bpf" test -e /sys/fs/bpf/dotd
[ "$(dpkg-query -f '${Version}' -W dotd)" = 0.1.0-2 ] || failure="${failure}the version is $(dpkg-query -f '${Version}' -W dotd); "
done_ "$(cat /run/walk.load)"

step "kill -9"
want "no ban" dotd ban add 192.0.2.77 --for 1h
before=$(main)
kill -9 "$before"
restarted() { now=$(main); [ "$now" != 0 ] && [ "$now" != "$before" ] && [ -n "$(engine)" ]; }
want "systemd did not start it again" eventually restarted
want "no answer after it" eventually ask
dotd ban list | has 192.0.2.77 || failure="${failure}the ban is gone; "
done_ "started again by systemd; the ban held"

step watchdog
before=$(main) began=$(uptime_cs)
# A process that stands still, and so says nothing to its main process.
kill -STOP $(engine)
want "systemd did not start it again" at_last restarted
want "no answer after it" at_last ask
journalctl --sync
journalctl -u dotd --since -10min -o cat | has 'Watchdog timeout' || failure="${failure}the journal names no watchdog; "
done_ "the engine stands still (SIGSTOP): systemd's watchdog started dotd again after $((($(uptime_cs) - began) / 100)) s"

step exposure
exposure=$(systemd-analyze security dotd --no-pager | tail -n 1 | sed 's/.*Overall exposure level for dotd.service: //; s/ *[^ -~]*$//')
done_ "systemd-analyze security: $exposure"

step stop
want "systemctl stop fails" systemctl stop dotd
want "XDP stays" lacks_xdp
refuse "the port is open" ask
result=$(systemctl show -P Result dotd)
[ "$result" = success ] || failure="${failure}its result is $result; "
refuse "pins stay" test -e /run/dotd.bpf/dotd
done_ "XDP off, port closed, result $result"

step remove
systemctl enable -q --now dotd
want "no answer before it" eventually ask
want "dpkg -r fails" dpkg -r dotd
want "XDP stays" lacks_xdp
refuse "the unit stays enabled" test -e /etc/systemd/system/multi-user.target.wants/dotd.service
refuse "its BPF file system stays" test -e /run/dotd.bpf
want "the config is gone" test -s $config
want "the state is gone" test -d /var/lib/dotd
done_ "stopped, XDP off; config and state stay"

step purge
want "dpkg -P fails" dpkg -P dotd
for left in /etc/dotd /var/lib/dotd /var/lib/dotd-keeper /run/dotd /usr/bin/dotd; do [ -e $left ] && failure="$failure$left stays; "; done
done_ "nothing of it is left but the user"

echo "DOTD done"
systemctl poweroff
