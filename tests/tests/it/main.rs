//! The integration tests: one binary, one module for each subject. Every module drives the real `dotd` program.
//!
//! Before: `cargo xtask test` built `dotd`. After: each promise of README, docs/standards.md, docs/attacks.md and
//! docs/packets.md was tried with real clients, backends, interfaces and packets. Where does a new test go? Into the
//! module whose sentence below names its subject: `rfcNNNN` for a sentence of an RFC, `xdp_*` for the kernel half, else
//! by the fault or the party that causes it. A module is at most 600 lines.
//! Never: a sleep as a synchronisation, a port or a namespace that another test could use.

/// `[access]`: who may ask, by address, listener, server name and client certificate.
mod access;
/// Certificates by ACME from pebble: the first one, renewals, failures, the rights of the process that gets them.
mod acme;
mod acme_account;
/// certbot and acme.sh beside dotd, by the recipes of the page.
mod acme_clients;
/// Handshakes that fail: the right alert, and a FIN behind it that lets the alert arrive.
mod alerts;
/// DNS in clear over UDP with a forged source address: what dotd sends there, how much, and when.
mod amplification;
/// dotd as a service: its lines in the journal, its log level, and verbs while the config is broken.
mod appliance;
/// Backends in clear that designate a TLS server (RFC 9462): verified discovery only upgrades.
mod backend_discovery;
/// Faults of backends: ICMP errors, half frames, all of them gone at once, more queries than places.
mod backend_faults;
/// Backends by their names: bootstrap resolvers, addresses that come and leave.
mod backend_names;
/// Backends over connections: pipelining, which responses count, what happens to queries when one closes.
mod backends;
/// The cache and shared answers (RFC 2308, RFC 8767), as clients and backends see them.
mod cache;
/// The cache by an operator's choices, and its rarer answers: stale ones, TTL bounds, subnets, forgetting.
mod cache_choices;
/// Certificates in an operator's practice: OCSP, several key types, groups.
mod certificates;
/// `dotd check --connect`: what is said of backends that answer, and of each kind that does not.
mod check_connect;
/// Nothing but TLS on 853 and no TLS on 53: the kernel half's gates, and the engine without them.
mod cleartext;
/// `dns.client_subnet` (RFC 7871): what a backend learns about a client's network.
mod client_subnet;
/// What the kernel refuses the process that serves.
mod confined;
/// Cookies: a client with one stays with one backend (RFC 7873).
mod cookies;
/// A machine that lacks rights or features: dotd serves and says what is missing.
mod degraded;
/// Through dotd a client gets the backend's own answer, octet for octet.
mod differential;
/// `dotd discovery`: the programs that its lines are for read them, and clients get answers by them.
mod discovery_lines;
/// Copies of messages for dnstap readers: what they see, and what a slow one costs.
mod dnstap;
/// Cleartext DNS through the same engine (`listen.do53`).
mod do53;
/// Replayed, changed or stolen first flights and tickets.
mod early_data;
/// Sessions that end in order: everything that was written arrives, then close_notify and FIN.
mod endings;
/// Errors of a backend are answers: without a question, without EDNS, about a question in another case.
mod error_answers;
/// Several backends: which one gets a query, and which one next.
mod failover;
/// One client that asks without end beside one that wants an answer.
mod fairness;
/// The whole path, end to end, with clients and backends of other projects.
mod first_light;
/// Too many messages, too large messages, clients that leave in the middle.
mod floods;
/// Octets on an Internet port that are not TLS, or old TLS, or half a handshake.
mod garbage;
/// One engine after another, after a crash.
mod handover;
/// `balance.hedge_percent`: a late query is also sent to a second backend.
mod hedging;
/// ClientHellos of real and hostile clients: cut, large, unusual.
mod hellos;
/// A machine without descriptors, memory, ports, or with a jumping clock.
mod host_faults;
/// With the capabilities of the packaged unit alone, in folders of the engine's user.
mod least_rights;
/// Ten thousand queries, none lost, every one in the ledger.
mod load;
/// What another local user, and the user that dotd becomes, can do to root's files and to other services.
mod local_users;
/// Clients that let answers wait: how much memory they may take, and which sessions end for it.
mod memory;
/// `[misuse]`: floods of random names, tunnels, and clients that fail or ask too much, beside clients that do not.
mod misuse;
/// A worker that pauses to gather answers: every answer still arrives.
mod moderation;
/// Sessions that go on in the next engine at an upgrade.
mod moving;
/// Only clients with a certificate of `tls.client_ca` are served.
mod mutual_tls;
/// From packets to connections: what became of SYNs.
mod openings;
/// The operator's verbs: check, pin, status, stats, xdp show.
mod operator;
/// Spans of traced clients, as a collector and backends get them.
mod otlp;
/// Pins in a BPF file system of dotd's own, and those that an earlier build left in the usual one.
mod own_bpffs;
/// The packages of `cargo xtask dist`: what is in them, that they are the same each time, that what they install works.
mod packages;
/// The units of `packaging/`: systemd accepts them, and dotd has the commands that they run.
mod packaging;
/// The packet parser over generated frames: no root, no kernel.
mod packet_properties;
/// The page on `control.http`: in a browser, and who may act from it.
mod page;
/// Queries longer than the path to their backend allows (RFC 9715).
mod path_mtu;
/// Slow, lossy and changing backends: no query lost, nothing left behind.
mod patience;
/// Policy zones from primary servers: AXFR, IXFR, NOTIFY, TSIG, over TLS; over a restart, and after their expire time.
mod policy_transfers;
/// `[policy]`: zones that change answers for names and addresses, compared with an Unbound that has the same zone.
mod policy_zones;
/// After start dotd holds no right; after its end the kernel holds nothing of dotd.
mod privileges;
/// PROXY headers on a load balancer's datagrams, and their fields beside the addresses.
mod proxy_in_clear;
/// PROXY protocol version 2, towards backends and from a load balancer.
mod proxy_protocol;
/// Real servers that read dotd's PROXY headers.
mod proxy_receivers;
/// `dotd query`: its questions, its trust, its output and its exit status.
mod query;
/// `dotd query` beside dig, kdig and getdns_query.
mod query_peers;
/// `dotd query`: what its ClientHello says, certificates of its own, IPv6, and truncated answers that TCP does not give.
mod query_tls;
/// `dotd query --trace-on`: the events of its own connections beside the answer.
mod query_trace;
/// The same records to dotd's record layer and to rustls's own have the same outcome; needs no root.
mod record_differential;
/// The record layer by the letter (RFC 8446 §4.6.3, §5, §6; RFC 5246 §6, §7.2): each wrong record, and its alert.
mod records;
/// SIGHUP changes what it can and keeps what it must; SIGTERM answers what is in flight.
mod reload;
/// Certificates that a renewal replaces while dotd runs, or that are wrong.
mod renewals;
/// A restart, which differs from a stop: bans survive it, and a bad config does not end the service.
mod restarts;
/// Idle sessions whose keys are at rest: they go on, change keys, end and move as others do.
mod resting;
/// DNSSEC: a validator comes to the same verdict through dotd.
mod rfc4035;
/// TLS 1.2: session IDs.
mod rfc5246;
/// Forgery: which responses dotd accepts.
mod rfc5452;
/// EDNS, and which messages are well formed.
mod rfc6891;
/// DNS over TCP: partial reads, pipelining, order, half-close.
mod rfc7766;
/// Edns-tcp-keepalive.
mod rfc7828;
/// DNS over TLS: framing and the life of a session.
mod rfc7858;
/// Client subnet and cookies pass through.
mod rfc7871;
/// TLS 1.3: records, key updates, groups.
mod rfc8446;
/// Padding.
mod rfc8467;
/// Extended DNS errors.
mod rfc8914;
/// Privacy: what logs may hold, where cleartext may go.
mod rfc8932;
/// TSIG passes octet for octet.
mod rfc8945;
/// Caps and deadlines that an operator sets.
mod rfc9210;
/// What old TLS clients offer and dotd refuses.
mod rfc9325;
/// Discovery of designated resolvers: `resolver.arpa` is answered here.
mod rfc9462;
/// What an operator sees: names of backends, latencies, what clients hear, in status, metrics and log lines.
mod seeing;
/// Four servers of other projects, behind dotd.
mod servers;
/// Connections to a backend that all clients share: one client's queries on them affect no other client.
mod shared_connections;
/// Several nodes with one `tls.ticket_secret`: a ticket from one node resumes on another.
mod shared_tickets;
/// The test harness itself: namespaces, backends and capture do what the other modules assume.
mod stage;
/// Clients that hold a connection and send or read nothing.
mod stalling;
/// Switches of a running dotd: drain and undrain, and the answers to load balancers' probes.
mod switches;
/// `[[tenant]]`: groups of clients with backends, a cache, policy zones and a rate of their own.
mod tenants;
/// TLS towards backends: how they are authenticated, and what happens when that fails.
mod tls_backends;
/// Records that carry nothing, inside an established session.
mod tls_floods;
/// Backends over TLS behind a box that lies: profiles, fall-back in clear, suspected downgrades.
mod tls_profiles;
/// Zone transfers, NOTIFY and UPDATE, where the config allows them.
mod transfers;
/// Another program takes dotd's place, or the old one serves on.
mod upgrade;
/// `dotd verify`: a capture tells TLS from octets in clear.
mod verify;
/// What dotd reports about single clients: refusals, connections.
mod watching;
/// The loader on real interfaces: what it attaches, pins, hands over and leaves behind.
mod xdp_attach;
/// Banned clients: in the kernel half, on the command line, over a restart.
mod xdp_bans;
/// The kernel half on the drivers of network cards, in the guests of `cargo xtask test-kernels`.
mod xdp_cards;
/// Every packet that the stack accepts was judged, whatever its headers are.
mod xdp_closed;
/// SYN cookies made by XDP.
mod xdp_cookies;
/// Budgets of handshakes, and bans that the engine makes.
mod xdp_costs;
/// The compiled kernel half decides as the same Rust code does on the host.
mod xdp_differential;
/// TCP Fast Open beside the cleartext gate.
mod xdp_fast_open;
/// Floods against the real server: a client above its rate gets its rate, and others are not affected.
mod xdp_floods;
/// Budgets, proofs and bans at three prefix lengths.
mod xdp_levels;
/// Rates, frame by frame.
mod xdp_limits;
/// Allow and deny lists by prefix.
mod xdp_lists;
/// Only packets for this machine are judged, and packets that it sends itself meet no limit: real machines.
mod xdp_local;
/// The same, frame by frame.
mod xdp_local_frames;
/// A refused client is logged once a minute.
mod xdp_notices;
/// The compiled object agrees with dot-common, and this kernel accepts it.
mod xdp_object;
/// Every way to a listen address: packets that XDP cannot see are judged at tc ingress.
mod xdp_paths;
/// Every row of docs/packets.md, shown to the compiled program.
mod xdp_policy;
/// When no worker has room, a SYN ends in the kernel half.
mod xdp_pressure;
/// SYN cookies at tc ingress that keep a client's TCP options.
mod xdp_proxy;
/// What the SYN proxy refuses, and what it leaves alone.
mod xdp_proxy_limits;
/// SYNs in other clients' names lock nobody out; the rate counts finished connections.
mod xdp_spoofers;
/// Packets that move between CPUs (`xdp.steering = "cpumap"`).
mod xdp_spread;
/// A connection goes to the worker of the CPU that takes its packets.
mod xdp_steering;
/// One dotd after another: no packet passes unjudged between them.
mod xdp_succession;
/// Each frame to dotd's ports is counted exactly once.
mod xdp_sums;
/// What an operator who traces a client learns of its packets, frame by frame.
mod xdp_trace;
/// Every verdict and every shape of header.
mod xdp_verdicts;
/// Interfaces and attachments that change while dotd serves without rights.
mod xdp_watch;
