//! Mistakes and the exact lines that an operator gets for them.

/// Text of a file; each line without the file's name.
pub(super) const MISTAKES: &[(&str, &[&str])] = &[
    ("nonsense", &["1:9: not TOML: key with no value, expected `=`"]),
    ("[session\nidle_timeout = \"5s\"", &["1:9: not TOML: unclosed table, expected `]`"]),
    ("[session]\nidle_timeout = \"5s\"\nidle_timeout = \"6s\"", &["3:1: not TOML: duplicate key"]),
    ("[sesion]", &["1:2: unknown key `sesion`: did you mean `session`?"]),
    (
        "idle_timeout = \"5s\"",
        &[
            "1:1: unknown key `idle_timeout`: the keys here are: server, listen, tls, acme, access, policy, misuse, discovery, session, backend, tenant, balance, dns, xdp, control, dnstap, otlp, log",
        ],
    ),
    (
        "[session]\n  idle_timout = \"5s\"",
        &["2:3: unknown key `session.idle_timout`: did you mean `session.idle_timeout`?"],
    ),
    (
        "[session]\nzzz = 1",
        &[
            "2:1: unknown key `session.zzz`: the keys here are: handshake_timeout, message_timeout, write_timeout, idle_timeout, duration_max, queries_max, in_flight_max, owed_octets_max, owed_octets_per_prefix_max, owed_octets_per_worker_max, connections_max, connections_per_prefix_max, connections_per_listener_max, handshakes_per_second, queries_per_second, queries_burst, queries_over, move_at_upgrade",
        ],
    ),
    (
        "[access]\nserver_names = [\"dns.example.\"]\nclient_names = [\"*\"]",
        &[
            "2:17: access.server_names: \"dns.example.\" is not a name that a client can present; write one such as \"dns.example\" or \"*.dns.example\"",
            "3:16: access.client_names: clients present certificates only if tls.client_ca is set; set that key",
            "3:17: access.client_names: \"*\" is not a name that a client can present; write one such as \"dns.example\" or \"*.dns.example\"",
        ],
    ),
    (
        "[listen]\ndo53 = [\"127.0.0.1:53\"]\n[access]\nserver_names = [\"dns.example\"]",
        &[
            "4:16: access.server_names: clients of listen.do53 present no names, so none of them could ask; move this to an [[access.listener]] of an address of listen.dot",
        ],
    ),
    (
        "[access]\nallow = [\"192.0.2.0/24\"]\ndeny = [\"192.0.0.0/16\", \"192.0.0.0/16\"]\n[[access.listener]]\naddress = \"192.0.2.1:853\"",
        &[
            "2:10: access.allow: 192.0.2.0/24 is denied by 192.0.0.0/16, which has precedence; remove one",
            "3:25: access.deny: 192.0.0.0/16 is listed twice; remove one",
            "5:11: access.listener.address: 192.0.2.1:853 is not an address of [listen]; copy one from there",
        ],
    ),
    (
        "[listen]\ndo53 = [\"127.0.0.1:53\"]\n[[access.listener]]\naddress = \"127.0.0.1:53\"\nserver_names = [\"dns.example\"]\n[[access.listener]]\naddress = \"127.0.0.1:53\"",
        &[
            "5:16: access.listener.server_names: clients of 127.0.0.1:53 do not use TLS and present no names; remove it",
            "7:11: access.listener.address: 127.0.0.1:53 is listed twice; put both in one",
        ],
    ),
    (
        "[[policy.zone]]\nname = \"a b\"\nfile = \"\"\naction = \"cname ..\"\n[[policy.zone]]\nname = \"rpz.test\"\nfile = \"z\"\n[[policy.zone]]\nname = \"RPZ.test.\"\nfile = \"z\"",
        &[
            "2:8: policy.zone.name: \"a b\" is not a domain name; write one such as \"rpz.example\"",
            "3:8: policy.zone.file: is empty; name the file that holds the zone, or a `primary` to transfer it from",
            "4:10: policy.zone.action: \"..\" is not a domain name",
            "9:8: policy.zone.name: \"RPZ.test.\" is another zone's name; choose one for each",
        ],
    ),
    (
        "[[policy.zone]]\nname = \"rpz.test\"\nfile = \"z\"\nformat = \"hosts\"\n[[policy.zone.primary]]\naddress = \"192.0.2.1:53\"\n\
         [[policy.zone.primary]]\naddress = \"0.0.0.0:53\"\nserver_name = \"x\"\n[[policy.zone.primary]]\naddress = \"192.0.2.1:853\"\n\
         transport = \"tls\"\nca = \"a.pem\"",
        &[
            "3:8: policy.zone.file: is not used with `primary`; remove one of them",
            "4:10: policy.zone.format: a zone that is transferred has format \"rpz\"; remove it",
            "6:11: policy.zone.primary.address: an attacker on the path to it could change the rules; set `tsig`, transport = \"tls\", or allow_unsigned = true if that network is yours",
            "8:11: policy.zone.primary.address: 0.0.0.0:53 is not the address of a server; use \"192.0.2.53:53\"",
            "9:15: policy.zone.primary.server_name: is used with transport = \"tls\" only; remove it",
            "12:13: policy.zone.primary.transport: \"tls\" needs `server_name` or `spki_pins` to identify the server",
            "13:6: policy.zone.primary.ca: verifies `server_name`, which is not set; set `server_name`, or remove this key",
        ],
    ),
    (
        "[[backend]]\naddress = \"127.0.0.1:53\"\n[[tenant]]\nname = \"a\"\nprefixes = [\"10.0.0.0/8\"]\nbackends = [\"127.0.0.1:53\"]",
        &[
            "6:12: tenant.backends: each backend is named by a tenant, so that clients of no tenant have none; leave one to them",
        ],
    ),
    (
        "[[tenant]]\nname = \"a b\"\nbackends = [\"x\"]\nqueries_per_second = 1\nqueries_burst = 3601\n[[tenant]]\nname = \"c\"\nlisteners = [\"127.0.0.1:9\"]\nserver_names = [\"*\", \"*.x.test\"]\nqueries_burst = 0\nqueries_per_second = 9\nqueries_by = \"name\"\nclient_subnet = \"add\"\n[[policy.zone]]\nname = \"z.test\"\nfile = \"z\"\ntenants = [\"d\"]",
        &[
            "1:1: tenant: has no client: write `listeners`, `server_names`, `client_names` or `prefixes`",
            "2:8: tenant.name: \"a b\" is no name: 1 to 63 of a to z, A to Z, 0 to 9, - _ .",
            "3:13: tenant.backends: \"x\" is no backend; `name` or `address` of a [[backend]]",
            "5:17: tenant.queries_burst: 3601 messages are as many as queries_per_second permits in 3601 s; use at most an hour's worth",
            "8:14: tenant.listeners: 127.0.0.1:9 is no address of listen.dot or listen.do53",
            "9:17: tenant.server_names: \"*\" is not a name that a client can present; write one such as \"dns.example\" or \"*.dns.example\"",
            "10:17: tenant.queries_burst: 0 is less than 1, the smallest permitted",
            "12:14: tenant.queries_by: a client can show any name there, and would have a new rate with each; use `client_names`, or `server_names` without `*`",
            "13:17: tenant.client_subnet: tells the tenant's own backends about clients, and it has none; set `backends`, or remove this key",
            "17:12: policy.zone.tenants: \"d\" is no tenant's name",
        ],
    ),
    (
        "[misuse]\nrandom_names = \"close\"\ntunnel = \"ban\"\nignore = [\"a b\", \"x.test\", \"X.test.\"]\nwindow = \"1h\"\nfailures_percent = 0\nqueries = \"drop\"\n[xdp]\nmode = \"off\"",
        &[
            "2:16: misuse.random_names: \"close\" is about a client, and such a flood comes from many, among others who ask for the domain; write \"count\", \"truncate\" or \"refuse\"",
            "3:10: misuse.tunnel: \"ban\" needs XDP, and xdp.mode is \"off\"; write \"close\"",
            "4:11: misuse.ignore: \"a b\" is not a domain name",
            "4:28: misuse.ignore: \"X.test.\" is listed twice; remove one",
            "5:10: misuse.window: 1h is more than 10m, the largest permitted",
            "6:20: misuse.failures_percent: 0 is less than 1, the smallest permitted",
            "7:11: misuse.queries: \"drop\" is not valid: use one of \"off\", \"count\", \"delay\", \"truncate\", \"refuse\", \"close\", \"ban\"",
        ],
    ),
    (
        "[misuse]\nqueries = \"ban\"\n[xdp.limit]\nban_seconds = 0",
        &[
            "2:11: misuse.queries: \"ban\" lasts xdp.limit.ban_seconds, which is 0; set that, or write \"close\"",
        ],
    ),
    (
        "[[policy.zone]]\nname = \"rpz.test\"\nfile = \"z\"\naction = \"block\"",
        &[
            "4:10: policy.zone.action: \"block\" is not an action; write \"given\", \"nxdomain\", \"nodata\", \"drop\", \"passthru\", \"tcp-only\" or \"cname NAME\"",
        ],
    ),
    ("[xdp.limits]", &["1:6: unknown key `xdp.limits`: did you mean `xdp.limit`?"]),
    ("[[backends]]\naddress = \"127.0.0.1:53\"", &["1:3: unknown key `backends`: did you mean `backend`?"]),
    (
        "[session]\nidle_timeout = 30",
        &[
            "2:16: session.idle_timeout: invalid type: integer `30`, expected a duration with its unit, such as \"5s\" or \"250ms\"",
        ],
    ),
    (
        "[session]\nidle_timeout = \"30\"",
        &["2:16: session.idle_timeout: \"30\" is not a duration; write one such as \"5s\" or \"250ms\""],
    ),
    (
        "[session]\nidle_timeout = \"10ms\"",
        &["2:16: session.idle_timeout: 10ms is less than 200ms, the smallest permitted"],
    ),
    (
        "[session]\nhandshake_timeout = \"5min\"",
        &["2:21: session.handshake_timeout: 5m is more than 1m, the largest permitted"],
    ),
    (
        "[session]\nin_flight_max = 65536",
        &[
            "2:17: session.in_flight_max: invalid value: integer `65536`, expected a whole number from 0 to 65535",
        ],
    ),
    (
        "[session]\nin_flight_max = 0",
        &["2:17: session.in_flight_max: 0 is less than 1, the smallest permitted"],
    ),
    (
        "[session]\nowed_octets_max = 33_554_432\nowed_octets_per_worker_max = 8_388_608",
        &[
            "1:1: session.owed_octets_per_prefix_max: 16777216 is less than session.owed_octets_max, 33554432; raise this key or lower the other",
            "3:30: session.owed_octets_per_worker_max: 8388608 is less than session.owed_octets_per_prefix_max, 16777216; raise this key or lower the other",
        ],
    ),
    (
        "[session]\nowed_octets_max = 1000",
        &["2:19: session.owed_octets_max: 1000 is less than 131072, the smallest permitted"],
    ),
    (
        "[session]\nconnections_per_listener_max = 10000001\nhandshakes_per_second = 1000001",
        &[
            "2:32: session.connections_per_listener_max: 10000001 is more than 10000000, the largest permitted",
            "3:25: session.handshakes_per_second: 1000001 is more than 1000000, the largest permitted",
        ],
    ),
    (
        "[session]\nqueries_per_second = 1000001\nqueries_burst = 0",
        &[
            "2:22: session.queries_per_second: 1000001 is more than 1000000, the largest permitted",
            "3:17: session.queries_burst: 0 is less than 1, the smallest permitted",
        ],
    ),
    (
        "[session]\nqueries_per_second = 1\nqueries_burst = 4000",
        &[
            "3:17: session.queries_burst: 4000 messages are as many as queries_per_second permits in 4000 s; use at most an hour's worth",
        ],
    ),
    (
        "[session]\nqueries_max = -1",
        &["2:15: session.queries_max: invalid value: integer `-1`, expected a whole number"],
    ),
    (
        "[session]\nconnections_max = \"many\"",
        &[
            "2:19: session.connections_max: invalid type: string \"many\", expected a whole number from 0 to 4294967295",
        ],
    ),
    ("[server]\nworkers = \"all\"", &["2:11: server.workers: write \"auto\" or a number from 1 to 256"]),
    ("[server]\nworkers = 257", &["2:11: server.workers: 257 is more than 256, the largest permitted"]),
    ("[server]\nrun_dir = \"\"", &["2:11: server.run_dir: is empty; name a folder"]),
    (
        "[server]\nrun_dir = \"/xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"",
        &["2:11: server.run_dir: too long for a socket's path; at most 94 octets"],
    ),
    (
        "[listen]\ndot = []",
        &["2:7: listen.dot: is empty; name at least one address, such as \"0.0.0.0:853\""],
    ),
    (
        "[listen]\ndot = [\"0.0.0.0:853\", \"0.0.0.0:53\"]",
        &["2:23: listen.dot: 0.0.0.0:53: DNS over TLS must not use port 53 (RFC 7858 §3.1); use 853"],
    ),
    (
        "[listen]\ndot = [\"0.0.0.0\"]",
        &["2:8: listen.dot: not an address:port; write one such as \"0.0.0.0:853\" or \"[::]:853\""],
    ),
    (
        "[listen]\ndot = [\"[::]:853\",\n  \"[::]:853\"]",
        &["3:3: listen.dot: [::]:853 is listed twice; remove one"],
    ),
    ("[listen]\ndo53 = [\"[::]:0\"]", &["2:9: listen.do53: [::]:0: port 0 cannot be used; use 53"]),
    ("[listen]\ndot = [\"[::]:0\"]", &["2:8: listen.dot: [::]:0: port 0 cannot be used; use 853"]),
    (
        "[listen]\ndot = \"[::]:853\"",
        &["2:7: listen.dot: invalid type: string \"[::]:853\", expected a list in [ ]"],
    ),
    (
        "[listen]\ndo53 = [\"127.0.0.1:53\", \"127.0.0.1:53\"]",
        &["2:25: listen.do53: 127.0.0.1:53 is listed twice; remove one"],
    ),
    (
        "[listen]\nproxy_protocol_from = [\"10.0.0.0/33\"]",
        &[
            "2:24: listen.proxy_protocol_from: not a prefix; write one such as \"192.0.2.0/24\" or \"2001:db8::/32\"",
        ],
    ),
    (
        "[tls]\nmin_version = \"1.1\"",
        &["2:15: tls.min_version: \"1.1\" is not valid: use one of \"1.2\", \"1.3\""],
    ),
    (
        "[tls]\nrequire_ems = false\nclient_ca = \"ca.pem\"",
        &[
            "2:15: tls.require_ems: false with tls.client_ca: without it an attacker on the path can impersonate a client (RFC 7627 §1); remove this key",
        ],
    ),
    (
        "[tls]\ncertificates = [{ cert = \"a.pem\" }]",
        &["2:17: tls.certificates: lacks `key`, which has no default"],
    ),
    (
        "[tls]\ncertificates = [{ cert = \"a.pem\", key = \"\" }]",
        &["2:41: tls.certificates.key: is empty; name a PEM file"],
    ),
    (
        "[tls]\nticket_rotation = \"7days\"",
        &["2:19: tls.ticket_rotation: 7days is more than 3days 12h, the largest permitted"],
    ),
    ("[[backend]]\ntransport = \"udp\"", &["1:1: backend: lacks `address`, which has no default"]),
    (
        "[[backend]]\naddress = \"localhost:53\"",
        &[
            "2:11: backend.address: \"localhost:53\" is neither an address:port, nor a name:port, nor \"embedded\"; write \"127.0.0.1:53\"",
        ],
    ),
    (
        "[[backend]]\naddress = \"192.0.2.1:53\"",
        &[
            "2:11: backend.address: queries to 192.0.2.1:53 would leave this machine in cleartext; set allow_cleartext = true if that network is yours",
        ],
    ),
    (
        "[[backend]]\naddress = \"0.0.0.0:53\"",
        &["2:11: backend.address: 0.0.0.0:53 is not the address of a host; use \"127.0.0.1:53\""],
    ),
    (
        "[[backend]]\naddress = \"127.0.0.1:53\"\n[[backend]]\naddress = \"127.0.0.1:53\"",
        &["4:11: backend.address: is listed twice; remove one, or raise the other's `weight`"],
    ),
    (
        "[[backend]]\naddress = \"127.0.0.1:53\"\nname = \"a b\"\n[[backend]]\naddress = \"127.0.0.1:54\"\nname = \"[::1]:53\"",
        &[
            "3:8: backend.name: \"a b\" is not a valid name: use 1 to 63 characters of a to z, A to Z, 0 to 9, - _ .",
            "6:8: backend.name: \"[::1]:53\" is not a valid name: use 1 to 63 characters of a to z, A to Z, 0 to 9, - _ .",
        ],
    ),
    (
        "[[backend]]\naddress = \"127.0.0.1:53\"\nname = \"x\"\n[[backend]]\naddress = \"127.0.0.1:54\"\nname = \"x\"",
        &["6:8: backend.name: \"x\" is another backend's name; choose one for each"],
    ),
    (
        "[[backend]]\naddress = \"127.0.0.1:53\"\nname = \"embedded\"\n[[backend]]\naddress = \"embedded\"",
        &["3:8: backend.name: \"embedded\" is another backend's name; choose one for each"],
    ),
    (
        "[[backend]]\naddress = \"127.0.0.1:853\"\n[listen]\ndot = [\"127.0.0.1:853\"]",
        &["2:11: backend.address: 127.0.0.1:853 is dotd itself; name the DNS server behind it"],
    ),
    (
        "[[backend]]\naddress = \"127.0.0.1:53\"\n[listen]\ndo53 = [\"0.0.0.0:53\"]",
        &["2:11: backend.address: 127.0.0.1:53 is dotd itself; name the DNS server behind it"],
    ),
    (
        "[[backend]]\naddress = \"127.0.0.1:53\"\nserver_name = \"a.example\"",
        &["3:15: backend.server_name: is used with transport = \"tls\" only; remove it"],
    ),
    (
        "[[backend]]\naddress = \"127.0.0.1:53\"\nweight = 0",
        &["3:10: backend.weight: 0 is less than 1, the smallest permitted"],
    ),
    (
        "[[backend]]\naddress = \"127.0.0.1:53\"\nproxy_v2 = \"yes\"",
        &["3:12: backend.proxy_v2: invalid type: string \"yes\", expected true or false"],
    ),
    (
        "[[backend]]\naddress = \"embedded\"\nproxy_v2 = true",
        &["3:12: backend.proxy_v2: the embedded backend reads no PROXY header; remove it"],
    ),
    (
        "[dns]\ncache_ttl_min = \"30min\"\ncache_negative_ttl_max = \"10min\"",
        &[
            "2:17: dns.cache_ttl_min: 30m is more than dns.cache_negative_ttl_max, 10m; lower this key or raise the other",
        ],
    ),
    (
        "[dns]\ncache_ttl_max = \"0s\"\ncache_negative_ttl_max = \"2days\"\ncache_stale = \"4days\"",
        &[
            "2:17: dns.cache_ttl_max: 0s is less than 1s, the smallest permitted",
            "3:26: dns.cache_negative_ttl_max: 2days is more than 1day, the largest permitted",
            "4:15: dns.cache_stale: 4days is more than 3days, the largest permitted",
        ],
    ),
    (
        "[dns]\ncache_entries = 9\n[[backend]]\naddress = \"127.0.0.1:53\"\nproxy_v2 = true",
        &[
            "2:17: dns.cache_entries: a backend with proxy_v2 may answer each client differently; set 0, or proxy_v2 = false",
        ],
    ),
    (
        "[listen]\nproxy_protocol_from = [\"192.0.2.0/24\"]",
        &[
            "2:23: listen.proxy_protocol_from: xdp.cleartext_853 refuses a PROXY header, which is not TLS; set that key to \"pass\" or \"count\"",
        ],
    ),
    (
        "[listen]\nproxy_protocol_from = [\"192.0.2.0/24\", \"192.0.2.1/24\"]\n[xdp]\ncleartext_853 = \"pass\"",
        &["2:40: listen.proxy_protocol_from: 192.0.2.0/24 is listed twice; remove one"],
    ),
    (
        "[[backend]]\naddress = \"127.0.0.1:8853\"\ntransport = \"tls\"\nspki_pins = [\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\"]\nca = \"ca.pem\"",
        &["5:6: backend.ca: verifies `server_name`, which is not set; set `server_name`, or remove this key"],
    ),
    (
        "[balance]\npolicy = \"roundrobin\"",
        &[
            "2:10: balance.policy: \"roundrobin\" is not valid: use one of \"least-outstanding\", \"round-robin\", \"hash\", \"first\"; nearest is \"round-robin\"",
        ],
    ),
    (
        "[balance]\nhealth_interval = \"0s\"",
        &["2:19: balance.health_interval: 0s is less than 100ms, the smallest permitted"],
    ),
    (
        "[balance]\nhedge_percent = 21",
        &["2:17: balance.hedge_percent: 21 is more than 20, the largest permitted"],
    ),
    (
        "[dns]\ncache_entries = 10_000_001",
        &["2:17: dns.cache_entries: 10000001 is more than 10000000, the largest permitted"],
    ),
    (
        "[xdp]\ncleartext_853 = \"rest\"",
        &[
            "2:17: xdp.cleartext_853: \"rest\" is not valid: use one of \"drop\", \"reset\", \"count\", \"pass\"; nearest is \"reset\"",
        ],
    ),
    (
        "[xdp]\nudp_853 = \"reset\"",
        &["2:11: xdp.udp_853: UDP has no connection to reset; use \"drop\", \"count\" or \"pass\""],
    ),
    (
        "[xdp]\nmode = \"off\"\nrequired = true",
        &["3:12: xdp.required: contradicts xdp.mode = \"off\"; change one"],
    ),
    (
        "[xdp]\ninterfaces = [\"eth0\", \"a-name-that-is-long\"]",
        &[
            "2:23: xdp.interfaces: \"a-name-that-is-long\" is not an interface name (1 to 15 octets); `ip link` lists them",
        ],
    ),
    (
        "[xdp]\ninterfaces = [\"eth0\", \"eth0\"]",
        &["2:23: xdp.interfaces: \"eth0\" is listed twice; remove one"],
    ),
    (
        "[xdp]\nmode = \"auto\"\nsteering = \"cpumap\"",
        &[
            "3:12: xdp.steering: \"cpumap\" needs xdp.mode = \"native\": in generic mode the kernel loses packets that move to another CPU",
        ],
    ),
    (
        "[xdp.limit]\nsyn_flood_rate = 0",
        &["2:18: xdp.limit.syn_flood_rate: 0 is less than 1, the smallest permitted"],
    ),
    (
        "[xdp]\ndeny = [\"192.0.2.0/24\"]\nallow = [\"192.0.0.0/16\", \"192.0.2.64/26\"]",
        &["3:26: xdp.allow: 192.0.2.64/26 is denied by 192.0.2.0/24, which has precedence; remove one"],
    ),
    (
        "[xdp]\ndeny = [\"192.0.2.7/24\", \"192.0.2.0/24\"]",
        &["2:25: xdp.deny: 192.0.2.0/24 is listed twice; remove one"],
    ),
    (
        "[xdp]\ndeny = [\"::ffff:192.0.2.0/120\"]",
        &["2:9: xdp.deny: ::ffff:192.0.2.0/120 never occurs in a packet; write \"192.0.2.0/24\""],
    ),
    (
        "[xdp.limit]\nsyn_per_second = 20_000_000",
        &["2:18: xdp.limit.syn_per_second: 20000000 is more than 10000000, the largest permitted"],
    ),
    (
        "[xdp.limit]\nhandshake_cost_per_second = 20_000_000\nban_seconds = 700_000",
        &[
            "2:29: xdp.limit.handshake_cost_per_second: 20000000 is more than 10000000, the largest permitted",
            "3:15: xdp.limit.ban_seconds: 700000 is more than 604800, the largest permitted",
        ],
    ),
    (
        "[xdp.limit]\nprefix_v6 = 64",
        &["2:13: xdp.limit.prefix_v6: 64 is more than 56, the largest permitted"],
    ),
    (
        "[xdp.limit]\nprefix_v4 = 33",
        &["2:13: xdp.limit.prefix_v4: 33 is more than 32, the largest permitted"],
    ),
    (
        "[control]\nhttp = \"8853\"",
        &["2:8: control.http: \"8853\" is not an address:port; write \"127.0.0.1:8853\""],
    ),
    (
        "[control]\nhttp = \"127.0.0.1:853\"\n[listen]\ndot = [\"127.0.0.1:853\"]",
        &["2:8: control.http: 127.0.0.1:853 is a DNS listener's address; use another port"],
    ),
    (
        "[log]\nlevel = \"loud\"",
        &[
            "2:9: log.level: \"loud\" is not valid: use one of \"error\", \"warn\", \"info\", \"debug\", \"trace\"",
        ],
    ),
    (
        "[log]\nconnections = true\nlevel = \"warn\"",
        &["2:15: log.connections: its lines have level info; log.level = \"warn\" suppresses them"],
    ),
    (
        "[dnstap]\nunix = \"/run/tap.sock\"\ntcp = \"192.0.2.1:6000\"\nmessages = []\nsample = 0",
        &[
            "3:7: dnstap.tcp: `unix` is set too, and only one reader gets messages; remove one of them",
            "3:7: dnstap.tcp: 192.0.2.1:6000 would get queries in clear; set allow_cleartext = true to permit that",
            "4:12: dnstap.messages: is empty; write [\"client\", \"backend\"] or one of them",
            "5:10: dnstap.sample: 0 is less than 1, the smallest permitted",
        ],
    ),
    (
        "[otlp]\nendpoint = \"http://192.0.2.1:4318/v1/traces\"\nsample = 0\ntraceparent_option = 8",
        &[
            "2:12: otlp.endpoint: 192.0.2.1:4318 would get spans in clear; needs allow_cleartext = true",
            "2:12: otlp.endpoint: gets nothing, because otlp.clients is empty; name prefixes, such as \"192.0.2.0/24\"",
            "3:10: otlp.sample: 0 is less than 1, the smallest permitted",
            "4:22: otlp.traceparent_option: 8 is not from 65001 to 65534, the codes for local use",
        ],
    ),
    (
        "[otlp]\nclients = [\"192.0.2.0/24\"]\nexemplars = true",
        &[
            "2:11: otlp.clients: names clients, and there is no endpoint; name one",
            "3:13: otlp.exemplars: needs an endpoint, because exemplars name traces",
        ],
    ),
    (
        "[otlp]\nendpoint = \"https://127.0.0.1:4318/v1/traces\"",
        &[
            "2:12: otlp.endpoint: \"https://127.0.0.1:4318/v1/traces\" is no endpoint; write \"http://127.0.0.1:4318/v1/traces\"",
        ],
    ),
    (
        "[dnstap]\ntcp = \"0.0.0.0:6000\"",
        &["2:7: dnstap.tcp: 0.0.0.0:6000 is not the address of a reader; write its host and port"],
    ),
    (
        "[dnstap]\nmessages = [\"resolver\"]",
        &["2:13: dnstap.messages: \"resolver\" is not valid: use one of \"client\", \"backend\""],
    ),
    (
        "[control]\npage = \"on\"",
        &["2:8: control.page: \"on\" is not valid: use one of \"off\", \"token\", \"open\""],
    ),
    (
        "[control]\npage_hosts = [\"a.example:80\"]",
        &["2:15: control.page_hosts: is not a host name; write one such as \"dns.example\", without a port"],
    ),
    ("session = 1", &["1:11: session: invalid type: integer `1`, expected a table"]),
    (
        "[[backend]]\naddress = \"x\"\n[[backend]]\nweight = 2\n[sessions]",
        &[
            "2:11: backend.address: \"x\" is neither an address:port, nor a name:port, nor \"embedded\"; write \"127.0.0.1:53\"",
            "3:1: backend: lacks `address`, which has no default",
            "5:2: unknown key `sessions`: did you mean `session`?",
        ],
    ),
    (
        "[[backend]]\naddress = \"192.0.2.1:853\"\ntransport = \"tls\"\nspki_pins = [\"abcd\"]\non_tls_failure = \"cleartext\"",
        &[
            "4:14: backend.spki_pins: \"abcd\" is not Base64 of 32 octets; `dotd pin FILE` prints one",
            "5:18: backend.on_tls_failure: a strict backend is never asked in clear (RFC 8310 §5); set \"next\" or \"refuse\", or profile = \"opportunistic\"",
        ],
    ),
    (
        "[[backend]]\naddress = \"127.0.0.1:8853\"\ntransport = \"tls\"\nprofile = \"opportunistic\"\non_tls_failure = \"cleartext\"\ncleartext_address = \"0.0.0.0:53\"",
        &[
            "5:18: backend.on_tls_failure: \"cleartext\" needs allow_cleartext = true for this backend",
            "6:21: backend.cleartext_address: 0.0.0.0:53 is not the address of a server; use \"192.0.2.1:53\"",
        ],
    ),
    (
        "[listen]\ndo53 = [\"127.0.0.1:53\"]\n[[backend]]\naddress = \"127.0.0.1:8853\"\ntransport = \"tls\"\nprofile = \"opportunistic\"\non_tls_failure = \"cleartext\"\nallow_cleartext = true",
        &[
            "7:18: backend.on_tls_failure: in clear, 127.0.0.1:53 is dotd itself; set `cleartext_address` to the DNS server behind it",
        ],
    ),
    (
        "[listen]\ndot = [\"0.0.0.0:853\"]\n[[backend]]\naddress = \"127.0.0.1:8853\"\ntransport = \"tls\"\nprofile = \"opportunistic\"\non_tls_failure = \"cleartext\"\nallow_cleartext = true\ncleartext_address = \"127.0.0.1:853\"",
        &[
            "9:21: backend.cleartext_address: in clear, 127.0.0.1:853 is dotd itself; set `cleartext_address` to the DNS server behind it",
        ],
    ),
    (
        "[[backend]]\naddress = \"192.0.2.1:853\"\ntransport = \"tls\"\nserver_name = \"a.test\"\n[[backend]]\naddress = \"192.0.2.2:853\"\ntransport = \"tls\"\nprofile = \"opportunistic\"\non_tls_failure = \"cleartext\"\nallow_cleartext = true\ncleartext_address = \"192.0.2.1:853\"",
        &[
            "11:21: backend.cleartext_address: 192.0.2.1:853 is a backend over TLS; set `cleartext_address` to the server's port in clear",
        ],
    ),
    (
        "[[backend]]\naddress = \"192.0.2.1:853\"\ntransport = \"tls\"\nprofile = \"opportunistic\"\nserver_name = \"a.test\"\nca = \"/a.pem\"\nspki_pins = [\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\"]",
        &[
            "6:6: backend.ca: is not checked for an opportunistic backend; remove it, or set profile = \"strict\"",
            "7:13: backend.spki_pins: is not checked for an opportunistic backend; remove it, or set profile = \"strict\"",
        ],
    ),
    (
        "[[backend]]\naddress = \"ns.example:53\"",
        &[
            "2:11: backend.address: is a name: name resolvers that know it in balance.bootstrap",
            "2:11: backend.address: its addresses may lie beyond this machine, and queries would leave it in cleartext; set allow_cleartext = true if that network is yours",
        ],
    ),
    (
        "[[backend]]\naddress = \"192.0.2.300:53\"",
        &[
            "2:11: backend.address: \"192.0.2.300:53\" is neither an address:port, nor a name:port, nor \"embedded\"; write \"127.0.0.1:53\"",
        ],
    ),
    (
        "[[backend]]\naddress = \"192.0.2.1:853\"\ntransport = \"tls\"\nserver_name = \"a.test\"\ndiscover = true",
        &["5:12: backend.discover: is for a backend with an address and transport = \"udp\"; remove it"],
    ),
    (
        "[balance]\nbootstrap = [\"0.0.0.0:53\"]",
        &["2:14: balance.bootstrap: 0.0.0.0:53 is no resolver's address; use \"192.0.2.53:53\""],
    ),
    (
        "[[backend]]\naddress = \"127.0.0.1:53\"\nprofile = \"opportunistic\"\ncleartext_address = \"127.0.0.1:54\"",
        &[
            "3:11: backend.profile: is used with transport = \"tls\" only; remove it",
            "4:21: backend.cleartext_address: is used with on_tls_failure = \"cleartext\" only; remove it",
        ],
    ),
    (
        "[[backend]]\naddress = \"127.0.0.1:53\"\non_tls_failure = \"cleartext\"\n[balance]\ndowngrade_window = \"1s\"",
        &[
            "3:18: backend.on_tls_failure: \"cleartext\" is for transport = \"tls\"; remove it",
            "5:20: balance.downgrade_window: 1s is less than 1m, the smallest permitted",
        ],
    ),
    (
        "[[backend]]\naddress = \"127.0.0.1:8853\"\ntransport = \"tls\"",
        &["3:13: backend.transport: \"tls\" needs `server_name` or `spki_pins` to identify the backend"],
    ),
];
