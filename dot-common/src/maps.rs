//! Names and sizes of the BPF maps. A name here is the name in the object, in pins and in `bpftool map`.
//!
//! Each map has one writing side.
//!
//! Before: nothing. After: dot-ebpf declares the maps, the loader finds them by these names.
//! Never: says what is in a map (`settings`, `flow`, `counters` do).

/// Per-CPU array of `u64` by [`crate::counters::index`]. Written by XDP.
pub const COUNTERS: &str = "COUNTERS";
/// Array of one [`crate::settings::Settings`]. Written by the loader.
pub const SETTINGS: &str = "SETTINGS";
/// LRU hash from [`crate::flow::FlowKey::v4`] to [`crate::flow::Flow`]. Written by the learner (XDP counts offences).
pub const FLOWS4: &str = "FLOWS4";
/// The same from [`crate::flow::FlowKey::v6`]. A separate map, because most of the cost of a look-up is the hash of its
/// key.
pub const FLOWS6: &str = "FLOWS6";
/// Prefix trie of IPv4 clients that get nothing: four octets. Written by the loader.
pub const DENY4: &str = "DENY4";
/// The same for IPv6: sixteen octets.
pub const DENY6: &str = "DENY6";
/// Prefix tries of clients beyond every limit, as [`DENY4`] and [`DENY6`]. Written by the loader.
pub const ALLOW4: &str = "ALLOW4";
/// See [`ALLOW4`].
pub const ALLOW6: &str = "ALLOW6";
/// LRU hash from [`crate::rate::key`] to the `u64` of [`crate::rate::Rate::admit`]. Written by XDP.
pub const RATE: &str = "RATE";
/// Hash from a [`crate::network::Network`] to [`crate::ban::Ban`]. Written by the loader (XDP counts hits). Not an LRU map: no packet may evict a ban.
pub const BANS: &str = "BANS";
/// Hash from the same key to [`crate::spent::Spent`]. Written by the loader.
pub const SPENT: &str = "SPENT";
/// LRU hash from the same key to the [`crate::proof::Proof`] of a host, or of a client prefix, that finished connections. Written by the loader alone,
/// so that no packet spends or evicts a proof.
pub const PROVEN: &str = "PROVEN";
/// Per-CPU array of one answer, for its checksum. Written by XDP.
pub const ANSWER: &str = "ANSWER";
/// Per-CPU array of one [`crate::frame::Located`]: where the paths of the parser meet. Written by XDP.
pub const SCRATCH: &str = "SCRATCH";
/// Per-CPU array of [`crate::client_cache::CachedClient`] by [`crate::client_cache::place`]. Written by XDP.
pub const MEMO: &str = "MEMO";
/// Prefix tries of this machine's own IPv4 addresses and of groups, as [`DENY4`]. Written by the loader.
pub const LOCAL4: &str = "LOCAL4";
/// The same for IPv6.
pub const LOCAL6: &str = "LOCAL6";
/// Per-CPU array of [`crate::local::Destination`] by [`crate::local::place`]. Written by XDP.
pub const DESTINATIONS: &str = "DESTINATIONS";
/// Array of [`crate::worker_status::WorkerStatus`] by worker, one for each loaded object, mapped into the engine's
/// memory. Written by the workers, each its own entry.
pub const WORKERS: &str = "WORKERS";
/// Array of listeners by worker. Written by the loader.
pub const SOCKETS: &str = "SOCKETS";
/// Array of the place of each CPU among those that workers are pinned to, by its number. Written by the loader.
pub const PLACES: &str = "PLACES";
/// Array of programs that may follow the judge, by [`crate::tail_calls`]. Written by the loader.
pub const CHAIN: &str = "CHAIN";
/// Per-CPU array of one [`crate::tail_calls::Left`]. Written by XDP.
pub const LEFT: &str = "LEFT";
/// Ring of [`crate::notice::Notice`]. Written by XDP.
pub const NOTICES: &str = "NOTICES";
/// Array of words by [`crate::notice::Place`]. Written by XDP.
pub const NOTICED: &str = "NOTICED";
/// Array of `u64` of [`crate::rate::Rate::admit`] by reason. Written by XDP.
pub const NOTICE_PACE: &str = "NOTICE_PACE";
/// Per-CPU array of `u64` by [`crate::notice::Fate`]. Written by XDP.
pub const NOTICE_COUNTS: &str = "NOTICE_COUNTS";
/// Array of one `u64` of [`crate::rate::Rate::admit`]: the schedule of all SYNs together. Written by XDP.
pub const FLOOD: &str = "FLOOD";
/// When the last cookie was sent at tc ingress.
pub const PROXY_SENT: &str = "PROXY_SENT";
/// SYN-ACKs sent at tc ingress, and connections that came of them.
pub const PROXY_COUNTS: &str = "PROXY_COUNTS";
/// Per-CPU array of the request for a connection that begins, between two functions of the proxy.
pub const PROXY_REQUEST: &str = "PROXY_REQUEST";
/// Places in [`PROXY_COUNTS`]: SYN-ACKs sent.
pub const PROXY_ANSWERED: u32 = 0;
/// Connections given to a listener.
pub const PROXY_COMPLETED: u32 = 1;
/// Connections that a list, a ban or a limit refused.
pub const PROXY_REFUSED: u32 = 2;
/// The number of these places.
pub const PROXY_FATES: u32 = 3;
/// The instruction in whose place the loader writes the number of the kernel function: a call of such a function, with a number
/// that no function has.
pub const PROXY_MARK: u64 = (PROXY_MARK_NUMBER as u64) << 32 | 0x2085;
/// That number.
pub const PROXY_MARK_NUMBER: u32 = 0x0d07_d5a1;
/// Per-CPU array of two headers, for the kernel's cookie. Written by XDP.
pub const HEADERS: &str = "HEADERS";
/// Queues of CPUs by their number. Written by the loader.
pub const CPU_QUEUES: &str = "CPU_QUEUES";
/// Array of the numbers of CPUs that packets are spread over. Written by the loader.
pub const SPREAD_OVER: &str = "SPREAD_OVER";

/// Array of words by [`crate::syn_times::Place`], mapped into the engine's memory. Written by the learner (workers empty
/// slots).
pub const SYN_TIMES: &str = "SYN_TIMES";
/// Array of one [`crate::traced::Traced`]. Written by the loader.
pub const TRACED: &str = "TRACED";
/// Ring of [`crate::traced::Seen`]. Written by XDP.
pub const TRACE_EVENTS: &str = "TRACE_EVENTS";
/// Array of one `u64` of [`crate::rate::Rate::admit`]: the schedule of events of traces. Written by XDP.
pub const TRACE_PACE: &str = "TRACE_PACE";
/// Per-CPU array of one `u64`: events of traces that found no room. Written by XDP.
pub const TRACE_LOST: &str = "TRACE_LOST";

/// Every map.
pub const ALL: [&str; 39] = [
    COUNTERS,
    SETTINGS,
    FLOWS4,
    FLOWS6,
    DENY4,
    DENY6,
    ALLOW4,
    ALLOW6,
    RATE,
    BANS,
    SPENT,
    PROVEN,
    ANSWER,
    SCRATCH,
    MEMO,
    LOCAL4,
    LOCAL6,
    DESTINATIONS,
    WORKERS,
    SOCKETS,
    PLACES,
    CHAIN,
    LEFT,
    NOTICES,
    NOTICED,
    NOTICE_PACE,
    NOTICE_COUNTS,
    FLOOD,
    PROXY_SENT,
    PROXY_COUNTS,
    PROXY_REQUEST,
    HEADERS,
    CPU_QUEUES,
    SPREAD_OVER,
    SYN_TIMES,
    TRACED,
    TRACE_EVENTS,
    TRACE_PACE,
    TRACE_LOST,
];

/// Connections of each IP version whose opening may be judged at the same time. An LRU map needs far more than 128 per
/// CPU.
pub const FLOWS_MAX: u32 = 131_072;
/// Clients whose rate is known at the same time, over all classes. 21 MB; a flood of spoofed addresses evicts clients
/// that came once before clients that came again.
pub const RATE_MAX: u32 = 262_144;
/// Bans at the same time: more clients than an engine can catch within a ban's usual minute. Memory is taken as bans
/// are made, some 6 MB when all are.
pub const BANS_MAX: u32 = 65_536;
/// Clients whose budget is spent at the same time, as [`BANS_MAX`].
pub const SPENT_MAX: u32 = 65_536;
/// Clients with a proof at the same time, as [`BANS_MAX`].
pub const PROVEN_MAX: u32 = 65_536;
/// Entries of each prefix trie: twice what a config may list, because a reload adds before it removes.
pub const LISTED_MAX: u32 = 32_768;
/// Most prefixes of this machine's own addresses, for each IP version: as many as large container hosts have. With
/// more, every destination counts as local.
pub const LOCAL_MAX: u32 = 16_384;
/// Destinations that each CPU remembers.
pub const DESTINATIONS_MAX: u32 = 1 << crate::local::DESTINATIONS_BITS;
/// Clients that each CPU remembers.
pub const MEMO_MAX: u32 = 1 << crate::client_cache::MEMO_BITS;
/// Most CPUs that packets are spread over, or that have a place.
pub const CPUS_MAX: u32 = 1024;
/// Most workers.
pub const WORKERS_MAX: u32 = 1024;

/// The XDP program.
pub const PROGRAM_XDP: &str = "dotd_xdp";
/// The learner of our own SYN-ACKs, at tc egress.
pub const PROGRAM_LEARN: &str = "dotd_learn";
/// The same learner, on interfaces without Ethernet.
pub const PROGRAM_LEARN_IP: &str = "dotd_learn_ip";
/// The judge at tc ingress, where XDP cannot be.
pub const PROGRAM_INGRESS: &str = "dotd_ingress";
/// The sk_reuseport program.
pub const PROGRAM_STEER: &str = "dotd_steer";
/// Sends notices of refusals; follows the XDP program.
pub const PROGRAM_NOTICE: &str = "dotd_notice";
/// Answers SYN with cookies; follows the XDP program.
pub const PROGRAM_COOKIE: &str = "dotd_cookie";
/// Moves packets to the CPU of their connection; follows the XDP program.
pub const PROGRAM_SPREAD: &str = "dotd_spread";
/// Answers SYNs of a flood at tc ingress, from Linux 6.9 on.
pub const PROGRAM_PROXY: &str = "dotd_proxy";

/// Which programs follow: bits of [`crate::tail_calls`], a constant of the loaded XDP programs.
pub const GLOBAL_FOLLOW: &str = "FOLLOW";
/// Period and tolerance of the rate of SYN above which cookies are asked for: constants of the loaded cookie program. A
/// period of 0 means always.
pub const GLOBALS_FLOOD: [&str; 2] = ["FLOOD_PERIOD_NS", "FLOOD_TOLERANCE_NS"];
/// The secret of the cookies at tc ingress.
pub const GLOBALS_PROXY_SECRET: [&str; 2] = ["PROXY_SECRET_A", "PROXY_SECRET_B"];
/// Ports of DNS over TLS, as [`crate::settings::Ports::pack`] has them: a constant of the loaded programs.
pub const GLOBAL_PORTS_DOT: &str = "PORTS_DOT";
/// The port of cleartext DNS, in the same way.
pub const GLOBAL_PORT_DO53: &str = "PORT_DO53";
/// Number of CPUs that packets are spread over: a constant of the loaded program.
pub const GLOBAL_SPREAD_CPUS: &str = "SPREAD_CPUS";
/// Number of workers: a constant of the loaded programs.
pub const GLOBAL_WORKERS: &str = "WORKER_COUNT";
/// Number of CPUs that workers are pinned to: a constant of the loaded steering program.
pub const GLOBAL_CPUS: &str = "CPUS";
