//! The EXAMPLES of each verb's help.
//!
//! Before: nothing. After: `arguments` shows them; its tests parse every line. Never: an example that cannot be typed.

pub(super) const EXAMPLES: &str = "\
EXAMPLES
  dotd run                      serve with the defaults: port 853, embedded zone, self-signed certificate
  dotd check -c dotd.toml       report what run would do, and every mistake
  dotd pin                      the pin that clients verify
  dotd status                   the running dotd at a glance

`dotd --help` says more, `dotd VERB --help` all about one verb.";

pub(super) const LONG_EXAMPLES: &str = "\
EXAMPLES
  Serve with the defaults: port 853, the embedded zone dotd.test, a self-signed certificate:
      dotd run

  In front of the DNS server on this machine, with your own certificate; dotd.toml holds
      [tls]
      certificates = [{ cert = \"/etc/dotd/tls/fullchain.pem\", key = \"/etc/dotd/tls/key.pem\" }]
      [[backend]]
      address = \"127.0.0.1:53\"
  and then
      dotd check -c dotd.toml && dotd run -c dotd.toml

  Ask it, and verify its pin:
      kdig @127.0.0.1 +tls +tls-pin=\"$(dotd pin | cut -d'\"' -f2)\" dotd.test A

  Watch it:
      dotd status
      dotd stats --json | jq .engine.queries

FILES
  /etc/dotd/dotd.toml           config; every key has a default
  /var/lib/dotd/self-signed.pem key and certificate when the config names none
  /run/dotd/control.sock        the socket for status, stats, ban and xdp

SIGNALS
  TERM, INT                     finish the sessions, then stop
  HUP                           read config and certificates again

EXIT STATUS
  0  success
  1  failure; one line on standard error for each reason
  2  wrong usage";

pub(super) const RUN_EXAMPLES: &str = "\
EXAMPLES
  dotd run                      the default of every key; needs root for port 853 and XDP
  dotd run -c ./dotd.toml       as an ordinary user: ports from 1024, folders of your own, XDP off";

pub(super) const PAGE_EXAMPLES: &str = "\
EXAMPLES
  dotd page                     the address, for a browser on this machine
  dotd page --json | jq -r .url";

pub(super) const VERIFY_EXAMPLES: &str = "\
EXAMPLES
  dotd verify                             ten seconds of the ports of listen.dot, on all interfaces
  dotd verify --interface eth0 --for 1m   a minute of one interface
  dotd verify --json 853 | jq .tls13.records";

pub(super) const CHECK_EXAMPLES: &str = "\
EXAMPLES
  dotd check                    the default config
  dotd check --connect          ask every backend too, over TLS with its name and pins
  dotd check --connect --json | jq '.backends[] | select(.outcome == \"failed\").mend'
  dotd check -c new.toml && mv new.toml /etc/dotd/dotd.toml && pkill -HUP -x dotd";

pub(super) const PIN_EXAMPLES: &str = "\
EXAMPLES
  dotd pin                      of the certificates that `dotd run` would serve
  dotd pin fullchain.pem        of the first certificate in a file
  dotd pin backup-key.pem       of a key that has no certificate yet: a backup pin

  The same by hand:
  openssl x509 -in fullchain.pem -pubkey -noout | openssl pkey -pubin -outform der \\
    | openssl dgst -sha256 -binary | base64";

pub(super) const QUERY_EXAMPLES: &str = "\
EXAMPLES
  dotd query www.example.net            the dotd of this machine, over TLS
  dotd query @192.0.2.1 example.net A example.net AAAA +short
  dotd query @dns.example.net example.net
                                        by a name, which its certificate must be valid for
  dotd query @192.0.2.1 +pin=JI3hMU2rmBFQQ49vhBHXURyVcpd6021eiGHOkqZtj0E= example.net
                                        by its pin: a strict profile, as with a name
  dotd query @192.0.2.1 --resume example.net
                                        ask twice, and show whether the second handshake was resumed
  dotd query www.example.net --trace-on
                                        and show what this machine's dotd saw of it, from accept to end
  dotd query @192.0.2.1 +tcp example.net AXFR
  dotd query @192.0.2.1 -f names.txt --json | jq '.rounds[].replies[] | select(.outcome != \"answered\")'

EXIT STATUS
  0  every question was answered, with NOERROR or NXDOMAIN
  1  failure before a question was sent  2  wrong usage
  3  an answer with another status      4  no answer in time
  5  no connection, or it ended early   6  no TLS, or no proof of identity
  7  a message that is not an answer to the question
  Of several outcomes the highest counts";

pub(super) const STATUS_EXAMPLES: &str = "\
EXAMPLES
  dotd status
  dotd status --socket ./run/control.sock
  dotd status --json | jq '.certificates[].not_after_unix'";

pub(super) const STATS_EXAMPLES: &str = "\
EXAMPLES
  dotd stats                    every counter that is not zero, for people
  dotd stats --json | jq '.packets[] | select(.verdict == \"drop\")'";

pub(super) const TOP_EXAMPLES: &str = "\
EXAMPLES
  dotd top                      on the terminal; q quits, s sorts, / filters, b bans the chosen client
  dotd top --once --sort cost   the clients with the highest cost of handshakes, as text
  dotd top --once --names       and the names that are asked for most
  dotd top --json --interval 10s | jq '.clients[] | select(.queries > 100).prefix'";

pub(super) const TRACE_EXAMPLES: &str = "\
EXAMPLES
  dotd trace 192.0.2.7          the events of this client
  dotd trace 192.0.2.0/24 --sample 100 --for 10s
                                one connection of a hundred of a network, for ten seconds
  dotd trace 0.17 --names --json | jq -c 'select(.event == \"query\")'
                                one session's queries, with their names";

pub(super) const EXPLAIN_EXAMPLES: &str = "\
EXAMPLES
  dotd explain 192.0.2.7        why is this client refused?
  dotd explain 2001:db8:17::/48 --json | jq '.refusals[] | {reason, key}'";

pub(super) const RELOAD_EXAMPLES: &str = "\
EXAMPLES
  dotd check && dotd reload     check first, then apply
  systemctl reload dotd         the same verb, by the unit";

pub(super) const UPGRADE_EXAMPLES: &str = "\
EXAMPLES
  install -m 755 target/release/dotd /usr/bin/dotd && dotd upgrade
  dotd upgrade --binary /opt/dotd-next/dotd     try another build; `dotd upgrade` goes back

EXIT STATUS
  0  the other program serves
  1  the old one continues to serve; the reason is printed
  3  no dotd runs here: start it
  4  the two builds do not understand each other: restart dotd";

pub(super) const UPSTREAM_HISTORY_EXAMPLES: &str = "\
EXAMPLES
  dotd upstream history         since when each backend speaks TLS, with which key, and how it fails
  dotd upstream history --json | jq '.[] | select(.suspected_since > 0).name'";

pub(super) const UPSTREAM_FORGIVE_EXAMPLES: &str = "\
EXAMPLES
  dotd upstream forgive office  its operator has confirmed that TLS was turned off";

pub(super) const XDP_EXAMPLES: &str = "\
EXAMPLES
  dotd xdp show
  dotd xdp show --json | jq '.programs[].verified_instructions'";

pub(super) const BAN_LIST_EXAMPLES: &str = "\
EXAMPLES
  dotd ban list
  dotd ban list --json | jq '.[] | select(.cause != \"operator\").prefix'";

pub(super) const BAN_ADD_EXAMPLES: &str = "\
EXAMPLES
  dotd ban add 192.0.2.7 --for 10m --reason 'ticket 4711'
  dotd ban add 2001:db8:17::9   the client prefix of this address: its /56 unless configured otherwise";

pub(super) const BAN_DEL_EXAMPLES: &str = "\
EXAMPLES
  dotd ban del 192.0.2.7
  dotd ban list --json | jq -r '.[].prefix' | xargs -n 1 dotd ban del";

pub(super) const CACHE_FLUSH_EXAMPLES: &str = "\
EXAMPLES
  dotd cache flush www.example.net     its addresses have changed
  dotd cache flush --suffix example.net
                                       a whole zone has moved
  dotd cache flush --type AAAA         answers of one type, for every name
  dotd cache flush                     a backend gave wrong answers for a while";

pub(super) const TICKETS_ROTATE_EXAMPLES: &str = "\
EXAMPLES
  dotd tickets rotate                  by a timer, more often than tls.ticket_rotation
  dotd tickets rotate --end-old        after this machine's memory was exposed";

pub(super) const LOG_LEVEL_EXAMPLES: &str = "\
EXAMPLES
  dotd log level debug                 a line for each session
  dotd log level info                  back to the usual level";

pub(super) const LOG_CONNECTIONS_EXAMPLES: &str = "\
EXAMPLES
  dotd log connections on              log clients, durations of handshakes, and ends of sessions
  journalctl -fu dotd | grep 'a connection has ended'
  dotd log connections off";

pub(super) const DETACH_EXAMPLES: &str = "\
EXAMPLES
  dotd xdp detach               after a crash, if no dotd will be started again
  dotd xdp detach --force       in an emergency: XDP drops valid packets, and sessions must stay open";

pub(super) const COMPLETIONS_EXAMPLES: &str = "\
EXAMPLES
  dotd completions bash > /usr/share/bash-completion/completions/dotd
  dotd completions zsh > ~/.zfunc/_dotd";

pub(super) const DRAIN_EXAMPLES: &str = "\
EXAMPLES
  dotd drain --for 30s          before a change to this machine
  dotd drain && dotd status";

pub(super) const DISABLE_EXAMPLES: &str = "\
EXAMPLES
  dotd disable                  until `dotd enable`, or a restart
  dotd disable --persist        also after a restart";

pub(super) const ENABLE_EXAMPLES: &str = "\
EXAMPLES
  dotd enable && dotd status";

pub(super) const BACKEND_DRAIN_EXAMPLES: &str = "\
EXAMPLES
  dotd backend drain resolver-1
  dotd backend drain 192.0.2.53:53 && dotd status";

pub(super) const BACKEND_ENABLE_EXAMPLES: &str = "\
EXAMPLES
  dotd backend enable resolver-1";

pub(super) const BACKEND_WEIGHT_EXAMPLES: &str = "\
EXAMPLES
  dotd backend weight resolver-1 5";

pub(super) const CONFIG_SHOW_EXAMPLES: &str = "\
EXAMPLES
  dotd config show --source | grep -v default
  dotd config show > dotd.toml && dotd check -c dotd.toml";

pub(super) const CONFIG_DIFF_EXAMPLES: &str = "\
EXAMPLES
  dotd config diff                       before `dotd reload`
  dotd config diff new.toml --json";

pub(super) const UNDRAIN_EXAMPLES: &str = "\
EXAMPLES
  dotd undrain";

pub(super) const MAN_EXAMPLES: &str = "\
EXAMPLES
  dotd man | man -l -
  dotd man ban add | man -l -
  dotd man --to /usr/local/share/man/man1";

pub(super) const IMPORT_EXAMPLES: &str = "\
EXAMPLES
  dotd import stunnel /etc/stunnel/dot.conf > dotd.toml && dotd check -c dotd.toml
  dotd import haproxy /etc/haproxy/haproxy.cfg
  dotd import nginx /etc/nginx/nginx.conf /etc/nginx/streams/dot.conf";

pub(super) const MISUSE_EXAMPLES: &str = "\
EXAMPLES
  dotd misuse                   whose, since when, and what is done about it
  dotd misuse --json | jq -r '.rows[].client'";

pub(super) const POLICY_EXAMPLES: &str = "\
EXAMPLES
  dotd policy                   each zone with its rules, serial number and age
  dotd policy test www.example.net";

pub(super) const POLICY_LIST_EXAMPLES: &str = "\
EXAMPLES
  dotd policy list
  dotd policy list --json | jq '.[].rules'";

pub(super) const POLICY_REFRESH_EXAMPLES: &str = "\
EXAMPLES
  dotd policy refresh rpz.example
  dotd policy refresh && dotd policy";

pub(super) const POLICY_TEST_EXAMPLES: &str = "\
EXAMPLES
  dotd policy test ads.example.net                the rule that decides, with its zone and line
  dotd policy test ads.example.net 192.0.2.7      the same for this client
  dotd policy test ads.example.net AAAA --client 192.0.2.7
  dotd policy test ads.example.net --tenant family
  dotd policy test www.example.net --answer cdn.example.org --answer 198.51.100.7";

pub(super) const DISCOVERY_EXAMPLES: &str = "\
EXAMPLES
  dotd discovery                          for the addresses of listen.dot
  dotd discovery --address 192.0.2.53 --address 2001:db8::53";

pub(super) const ACME_STATUS_EXAMPLES: &str = "\
EXAMPLES
  dotd acme status
  dotd acme status --json | jq -r .error";

pub(super) const ACME_RENEW_EXAMPLES: &str = "\
EXAMPLES
  dotd acme renew && dotd status
  dotd acme renew --json | jq .not_after";
