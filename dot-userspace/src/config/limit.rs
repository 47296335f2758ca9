//! The limits of each number and duration: default, smallest and largest, with the reason or the source.
//!
//! Before: RFCs, other servers and measurements. After: `defaults` and `range` use these, and no numbers of their
//! own.
//! Never: contains a value without its source.

use std::time::Duration;

/// The range of one value.
#[derive(Clone, Copy, Debug)]
pub struct Limit<T> {
    /// The value of an absent key.
    pub default: T,
    /// Smallest permitted.
    pub min: T,
    /// Largest permitted.
    pub max: T,
}

/// Worker threads if the value is not "auto"; the default is used only if "auto" finds no CPU. 256: CPUs of the
/// largest machines that serve DNS, and the width of the steering map.
pub const WORKERS: Limit<u16> = Limit { default: 1, min: 1, max: 256 };

/// Age of the ticket key. 6 h; a ticket lives for at most two rotations, and RFC 8446 §4.6.1 gives it 7 days.
pub const TICKET_ROTATION: Limit<Duration> = Limit { default: h(6), min: s(60), max: h(84) };

/// A whole handshake, from accept. 5 s: two round trips to the far side of the world with a lost segment take
/// 3 s; below 200 ms distant clients cannot connect.
pub const HANDSHAKE_TIMEOUT: Limit<Duration> = Limit { default: s(5), min: ms(200), max: s(60) };

/// From a message's first octet to its last. 5 s: a message fits into a few segments; slower is an attack
/// or a link on which a stub resolver has given up already.
pub const MESSAGE_TIMEOUT: Limit<Duration> = Limit { default: s(5), min: ms(200), max: s(60) };

/// Time in which a client must read responses that wait for it; a client that reads 16 KiB a second has longer. 10 s:
/// the kernel takes more for a connection only after half of what it holds was read.
pub const WRITE_TIMEOUT: Limit<Duration> = Limit { default: s(10), min: ms(200), max: s(60) };

/// Idle time before a session closes. 30 s; RFC 7766 §6.2.3 asks for "a few seconds", and 30 s is what
/// Unbound and BIND use. 1 h fits the 16 bits of 100 ms that RFC 7828 §3.1 has for it.
pub const IDLE_TIMEOUT: Limit<Duration> = Limit { default: s(30), min: ms(200), max: h(1) };

/// Longest life of a session. 1 h: new keys and new balance now and then; a week is as long as a ticket.
pub const DURATION_MAX: Limit<Duration> = Limit { default: h(1), min: s(1), max: h(168) };

/// Most queries of a session. 100,000: an hour of a busy household's resolver; below TLS' limits on one key
/// (RFC 8446 §5.5: 2^24.5 records).
pub const QUERIES_MAX: Limit<u64> = Limit { default: 100_000, min: 1, max: 16_000_000 };

/// Most unanswered queries of a session. 256: what one turn of the loop can batch; 65,535: a session has no
/// more message IDs (RFC 1035 §4.1.1).
pub const IN_FLIGHT_MAX: Limit<u16> = Limit { default: 256, min: 1, max: 65_535 };

/// Most octets of responses that wait for a session's client. 4 MiB: `in_flight_max` answers of 16 KiB, or 64 of the
/// longest; 128 KiB: one of those beside the one that is being written; 64 MiB: a client that needs more uses dotd's
/// memory as storage.
pub const OWED_OCTETS_MAX: Limit<u32> = Limit { default: 4 << 20, min: 128 << 10, max: 64 << 20 };

/// The same for one client prefix, on each worker. 16 MiB: a few sessions that read none of all the answers that they
/// may ask for; more sessions share it.
pub const OWED_OCTETS_PER_PREFIX_MAX: Limit<u32> = Limit { default: 16 << 20, min: 128 << 10, max: 1 << 30 };

/// The same for all clients of a worker. 64 MiB: memory that a small machine with four cores can spare.
pub const OWED_OCTETS_PER_WORKER_MAX: Limit<u32> = Limit { default: 64 << 20, min: 1 << 20, max: 1 << 31 };

/// Most connections of the process. 100,000 at about 20 KiB each are 2 GiB; lowered to RLIMIT_NOFILE at
/// start.
pub const CONNECTIONS_MAX: Limit<u32> = Limit { default: 100_000, min: 1, max: 10_000_000 };

/// Most connections of one client prefix. 500: a carrier's NAT address has fewer, and one attacker cannot use all
/// places.
pub const CONNECTIONS_PER_PREFIX_MAX: Limit<u32> = Limit { default: 500, min: 1, max: 10_000_000 };

/// Messages per second of a client prefix over connections; 0: no limit. 0: one address may be a forwarder for
/// thousands, whose rate only the operator knows, and shares and turns protect other clients without a limit. A
/// million: the rate of one worker.
pub const QUERIES_PER_SECOND: Limit<u32> = Limit { default: 0, min: 1, max: 1_000_000 };

/// Such messages at once. 1000: a household's pages, or an office's forwarder that starts with an empty cache.
pub const QUERIES_BURST: Limit<u32> = Limit { default: 1000, min: 1, max: 1_000_000 };

/// Longest time of the rate that [`QUERIES_BURST`] may be. 1 h: a burst that takes longer to accumulate is no limit.
pub const QUERIES_BURST_TIME_MAX: Duration = h(1);

/// Most connections of one listen address; 0: as many as in total. 0: if every address serves the same clients, one
/// cap is enough.
pub const CONNECTIONS_PER_LISTENER_MAX: Limit<u32> = Limit { default: 0, min: 1, max: 10_000_000 };

/// Handshakes a second of one client prefix, twice as many at once; 0: no limit. 0: `xdp.limit` refuses more cheaply,
/// and without XDP only an operator knows how many people use one address.
pub const HANDSHAKES_PER_SECOND: Limit<u32> = Limit { default: 0, min: 1, max: 1_000_000 };

/// Time to wait for a backend. 2 s: a stub resolver gives up after about five; 50 ms: a resolver must be able
/// to ask one authoritative server.
pub const BACKEND_TIMEOUT: Limit<Duration> = Limit { default: s(2), min: ms(50), max: s(30) };

/// Octets of a backend's name: as a label of the DNS (RFC 1035 §2.3.4), which fits a line of `dotd status`.
pub const BACKEND_NAME_OCTETS_MAX: usize = 63;

/// Share of a backend. 1: equal; 1000 keeps sums of weights far from overflow.
pub const BACKEND_WEIGHT: Limit<u16> = Limit { default: 1, min: 1, max: 1000 };

/// How often a backend is checked, and how long it rests after it could not be reached. 1 s: one that has returned is
/// found within a second, at the cost of one query; below 100 ms the checks are a load, and above 1 h a backend that
/// has returned is forgotten.
pub const HEALTH_INTERVAL: Limit<Duration> = Limit { default: s(1), min: ms(100), max: h(1) };

/// Second tries of late queries, in a hundred queries; 0: none. 0: an operator who counts queries, pays for them or
/// keeps a second backend in reserve must decide whether some are asked twice. 20: above that, a slow set of backends
/// gets a load that makes it slower.
pub const HEDGE_PERCENT: Limit<u8> = Limit { default: 0, min: 1, max: 20 };

/// Most resolvers of `balance.bootstrap`. 8: one that is asked last is asked after 28 s.
pub const BOOTSTRAP_MAX: usize = 8;

/// For this long after its last TLS a backend is not asked in clear. A week: RFC 9539 §4.3 remembers a success for
/// three days, and an operator must see the alert after a long weekend. A minute is for tests; a year means that the
/// server will never lose its TLS.
pub const DOWNGRADE_WINDOW: Limit<Duration> = Limit { default: h(7 * 24), min: s(60), max: h(366 * 24) };

/// Cached responses per worker; 0: no cache. 10 million at about 200 octets are 2 GiB.
pub const CACHE_ENTRIES: Limit<u32> = Limit { default: 0, min: 1, max: 10_000_000 };

/// Shortest time for which an answer is cached, whatever its TTL. 0: the TTL of the zone's owner is respected. An
/// hour: after a longer time clients would get records that the owner has long changed.
pub const CACHE_TTL_MIN: Limit<Duration> = Limit { default: s(0), min: s(0), max: h(1) };

/// Longest time for which an answer is cached. A day, as in Unbound; RFC 8767 §4 suggests a week as a cap.
pub const CACHE_TTL_MAX: Limit<Duration> = Limit { default: h(24), min: s(1), max: h(168) };

/// Longest time for which a negative answer is cached. An hour: RFC 2308 §5 recommends one to three hours, and no
/// more than a day.
pub const CACHE_NEGATIVE_TTL_MAX: Limit<Duration> = Limit { default: h(1), min: s(1), max: h(24) };

/// How long after the end of its lifetime an answer is used while no backend gives a newer one; 0: never. 30 s: a
/// backend's restart; RFC 8767 §5 suggests one to three days as the longest.
pub const CACHE_STALE: Limit<Duration> = Limit { default: s(30), min: s(0), max: h(72) };

/// Length of an IPv4 client prefix. 32: one address; below 8 a prefix is most of the world.
pub const PREFIX_V4: Limit<u8> = Limit { default: 32, min: 8, max: 32 };

/// Length of an IPv6 client prefix. 56: the size that many providers assign to a customer (RFC 6177); below 16 it is
/// a registry, and with more than 56 a client could use other addresses of its own assignment.
pub const PREFIX_V6: Limit<u8> = Limit { default: 56, min: 16, max: dot_common::prefix::PREFIX_BITS_MAX };

/// Length of a wider IPv4 prefix. 24: the longest prefix that is routed on the internet, so one holder has all of it.
pub const WIDE_V4: Limit<u8> = Limit { default: 24, min: 8, max: 32 };

/// Length of a wider IPv6 prefix. 48: the size for one site (RFC 6177), 256 client prefixes of the usual length.
pub const WIDE_V6: Limit<u8> = Limit { default: 48, min: 16, max: dot_common::prefix::PREFIX_BITS_MAX };

/// Finished connections per second of a wider prefix; 0: no limit. 500: ten clients at their whole rate; thousands of
/// a carrier's clients behind a /24 keep their connections open.
pub const WIDE_CONNECTIONS_PER_SECOND: Limit<u32> = Limit { default: 500, min: 1, max: 10_000_000 };

/// Handshake cost per second of a wider prefix; 0: no limit. 200: ten clients at their whole rate, and a tenth of the
/// handshakes that one core can do.
pub const WIDE_COST_PER_SECOND: Limit<u32> = Limit { default: 200, min: 1, max: 10_000_000 };

/// Names of a certificate by ACME. 100: the most that Let's Encrypt takes.
pub const ACME_NAMES_MAX: usize = 100;
/// Mail addresses of an ACME account.
pub const ACME_CONTACTS_MAX: usize = 8;
/// Addresses of `acme.http_listen`.
pub const ACME_LISTENERS_MAX: usize = 16;
/// Octets of `acme.eab_kid`.
pub const ACME_KID_OCTETS_MAX: usize = 256;
/// Octets of a profile's name.
pub const ACME_PROFILE_OCTETS_MAX: usize = 64;

/// Most `[[policy.zone]]`. 64: a query is looked up in each.
pub const POLICY_ZONES_MAX: usize = 64;

/// Most `[[policy.zone.primary]]` of a zone. 4: feeds name at most that many.
pub const POLICY_PRIMARIES_MAX: usize = 4;

/// Octets of the name of a `[[policy.zone]]`: a rule's owner is a whole name in front of it.
pub const POLICY_NAME_OCTETS_MAX: usize = 100;

/// Most `[[tenant]]`. 32: each has a cache, and is a row of `dotd status`.
pub const TENANTS_MAX: usize = 32;

/// A window of `[misuse]`. 10 s: a flood is found within seconds, and a page's burst of queries fills none. 10 min: a longer one says
/// what was, not what is.
pub const MISUSE_WINDOW: Limit<Duration> = Limit { default: s(10), min: s(1), max: s(600) };

/// How long something is done about a misuse after it was last found. 1 min: a flood that pauses is still known.
pub const MISUSE_HOLD: Limit<Duration> = Limit { default: s(60), min: s(1), max: h(24) };

/// Domains of `misuse.ignore`. 1000: what people keep by hand.
pub const MISUSE_IGNORE_MAX: usize = 1000;

/// Messages a second of a client whose queries are delayed. 10: a person goes on, slowly.
pub const MISUSE_DELAYED_PER_SECOND: Limit<u32> = Limit { default: 10, min: 1, max: 10_000 };

/// Different names below a domain in a window. 200: what no page asks of one domain; 2000: up to there a worker counts well.
pub const MISUSE_RANDOM_NAMES_MIN: Limit<u32> = Limit { default: 200, min: 10, max: 2000 };

/// Answers without data below a domain, in a hundred. 80: of random names nearly all; 1: for tries.
pub const MISUSE_MISSING_PERCENT: Limit<u8> = Limit { default: 80, min: 1, max: 100 };

/// New names below a flooded domain that backends get in a window. 50: clients that want a name for the first time have a chance.
pub const MISUSE_RANDOM_NAMES_BUDGET: Limit<u32> = Limit { default: 50, min: 0, max: 1_000_000 };

/// Octets of long new names of a client below a domain in a window. 8 KiB: 6 kbit/s in a window of 10 s, and 60 names at their
/// longest; hashes that a virus scanner looks up stay below.
pub const MISUSE_TUNNEL_NAME_OCTETS: Limit<u32> = Limit { default: 8192, min: 256, max: 1 << 30 };

/// Octets of answers of types that tunnels use, of a client below a domain in a window. 64 KiB: 50 kbit/s.
pub const MISUSE_TUNNEL_ANSWER_OCTETS: Limit<u32> = Limit { default: 65_536, min: 1024, max: 1 << 30 };

/// Answers of a client in a window before they are judged. 200: a mistyped search list of one machine stays below.
pub const MISUSE_FAILURES_MIN: Limit<u32> = Limit { default: 200, min: 10, max: 1_000_000 };

/// Failures among them, in a hundred. 90: with a search list two of three answers may be NXDOMAIN.
pub const MISUSE_FAILURES_PERCENT: Limit<u8> = Limit { default: 90, min: 1, max: 100 };

/// Messages of a client in a window. 5000: 500 a second, which a household does not reach; only the operator knows offices.
pub const MISUSE_QUERIES_MAX: Limit<u32> = Limit { default: 5000, min: 10, max: 100_000_000 };

/// Octets of answers to a client in a window. 4 MiB: 5,000 answers of 800 octets.
pub const MISUSE_ANSWER_OCTETS_MAX: Limit<u32> = Limit { default: 4 << 20, min: 4096, max: 1 << 31 };

/// Most prefixes of `xdp.allow` and of `xdp.deny`. 16,384: enough for lists that are kept by hand; half of the kernel
/// map's size, because a reload adds before it removes.
pub const LISTED_MAX: usize = dot_common::maps::LISTED_MAX as usize / 2;

/// TCP SYN per second and client prefix; 0: no limit. 50: a stub keeps its connection, so that even a few hundred
/// people behind one address seldom begin as many, and one core makes 50 full handshakes in 20 ms. 10 million: more
/// than one core of XDP can see.
pub const SYN_PER_SECOND: Limit<u32> = Limit { default: 50, min: 1, max: 10_000_000 };

/// TCP SYN at once. 100: a page's worth of connections behind one NAT.
pub const SYN_BURST: Limit<u32> = Limit { default: 100, min: 1, max: 10_000_000 };

/// UDP/53 queries per second and client prefix; 0: no limit. 200: a household asks a few a second, an office's
/// forwarder some tens; a query above the rate gets TC=1, and its answer over TCP.
pub const UDP53_PER_SECOND: Limit<u32> = Limit { default: 200, min: 1, max: 10_000_000 };

/// UDP/53 queries at once. 400: two seconds of the rate.
pub const UDP53_BURST: Limit<u32> = Limit { default: 400, min: 1, max: 10_000_000 };

/// Cost of handshakes per second and client prefix (full 1, resumed 0.2, failed 3), ten seconds of it at once; 0: no
/// limit. 20: a thousandth of a core's time at 48 µs each, and more than the people behind one address begin.
pub const HANDSHAKE_COST_PER_SECOND: Limit<u32> = Limit { default: 20, min: 1, max: 10_000_000 };

/// Length of a ban in seconds; 0: the engine bans no client. 60: an attacker is banned again at once, and the next
/// user of its address waits a minute. A week: after that the address has another user.
pub const BAN_SECONDS: Limit<u32> = Limit { default: 60, min: 1, max: 604_800 };

/// TCP SYN per second of all clients together above which XDP asks the kernel for cookies. 10,000: answered by the stack at
/// 4 µs each they are 4 % of a core, and no crowd of stubs begins as many; 10 million as above.
pub const SYN_FLOOD_RATE: Limit<u32> = Limit { default: 10_000, min: 1, max: 10_000_000 };

/// One query in this many is copied for a dnstap reader. 1: all, until the operator knows how many the reader can
/// take; a million: some queries a minute of the busiest server.
pub const DNSTAP_SAMPLE: Limit<u32> = Limit { default: 1, min: 1, max: 1_000_000 };

/// Octets of `dnstap.identity`: the longest host name (RFC 1035 §2.3.4).
pub const DNSTAP_IDENTITY_OCTETS_MAX: usize = 255;

/// One of so many connections of clients whose spans are exported. 1: all, as such clients are few; a million as for dnstap.
pub const OTLP_SAMPLE: Limit<u32> = Limit { default: 1, min: 1, max: 1_000_000 };

/// Prefixes of clients whose spans are exported: half of the traces that may run, so that `dotd trace` has room.
pub const OTLP_CLIENTS_MAX: usize = 4;

/// EDNS option codes for local and experimental use (RFC 6891 §9).
pub const OTLP_OPTIONS: std::ops::RangeInclusive<u16> = 65_001..=65_534;

/// Octets of the control socket's path: `sun_path` of Linux less its NUL (unix(7)).
pub const SOCKET_PATH_OCTETS_MAX: usize = 107;

/// Octets of an interface's name: IFNAMSIZ less its NUL.
pub const INTERFACE_NAME_OCTETS_MAX: usize = 15;

const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

const fn s(count: u64) -> Duration {
    Duration::from_secs(count)
}

const fn h(count: u64) -> Duration {
    Duration::from_secs(count * 3600)
}
