//! The kernel half's counters under many kinds of frames at once: each frame to dotd's ports is counted exactly once.
//!
//! Before: dotd on one end of a veth pair, a client that was banned, one that spent its budget, and a list. After: raw
//! frames of every class were sent, mixed; the counters equal the numbers of frames sent, class by class.
//! Never: lets the clock decide: a test does not ask which of a client's frames are within its rate.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
};

use dot_tests::{
    frames::{ACK, Build, CLEARTEXT_QUERY, CLIENT_HELLO, Fragment, Frame, PSH, QUERY, SYN},
    harness::{
        DEADLINE,
        clients::{DOT_PORT, is_answered_over_tls, kdig, read_to_close},
        config::Config,
        eventually,
        flood::Wire,
        netns::{CLIENT_INTERFACE, Network, SERVER_V4, SERVER_V6},
        scene::embedded,
        server::Server,
        stats::Stats,
    },
    require,
};
use socket2::{Domain, Socket, Type};

/// The number of frames of each kind.
const EACH: u64 = 300;

/// A client that has spent its handshake budget; the address is removed before the flood, so that no machine answers
/// for it.
const SPENT: &str = "10.53.0.77";
/// A client that is banned.
const BANNED: &str = "10.53.0.66";
/// A client on the deny list.
const DENIED: &str = "10.53.0.67";

fn config(mode: &str) -> Config {
    Config::new()
        .xdp(mode)
        .set("xdp", "deny", &format!("[\"{DENIED}/32\"]"))
        .set("xdp.limit", "syn_per_second", "100")
        .set("xdp.limit", "syn_burst", "100")
        .set("xdp.limit", "syn_over", "\"drop\"")
        .set("xdp.limit", "udp53_per_second", "100")
        .set("xdp.limit", "udp53_burst", "100")
        .set("xdp.limit", "udp53_over", "\"drop\"")
        .set("xdp.limit", "handshake_cost_per_second", "1")
        .set("xdp.limit", "ban_seconds", "3600")
}

/// The same, where packets are only counted instead of refused.
fn counting(mode: &str) -> Config {
    config(mode)
        .set("xdp", "cleartext_853", "\"count\"")
        .set("xdp", "tls_53", "\"count\"")
        .set("xdp", "udp_853", "\"count\"")
        .set("xdp.limit", "mode", "\"count\"")
}

/// A class of frames: the names of its counters, and a function that makes a frame from a number.
struct Class {
    name: &'static str,
    /// Counters that together are the class; none: the class is not for dotd.
    reasons: &'static [&'static str],
    make: fn(u64) -> Frame,
}

fn from(last: u8) -> IpAddr {
    Ipv4Addr::new(10, 53, 0, last).into()
}

fn to_us(build: Build, client: &str) -> Frame {
    build.client(client.parse().expect("an address")).server(SERVER_V4).frame()
}

/// One of each kind of packet that a client can send.
fn any(number: u64, client: &str) -> Frame {
    let build = match number % 5 {
        0 => Build::tcp(853, SYN, 7, &[]),
        1 => Build::tcp(853, PSH | ACK, 7, &CLEARTEXT_QUERY),
        2 => Build::tcp(53, SYN, 7, &[]),
        3 => Build::udp(53, &QUERY),
        _ => Build::udp(853, b"quic?"),
    };
    to_us(build, client)
}

/// Malformed packets to dotd's ports, each with another fault; `number` chooses.
fn lie(number: u64) -> Frame {
    let build = Build::tcp(853, PSH | ACK, 7, &CLIENT_HELLO).client(from(80)).server(SERVER_V4);
    let tcp = build.frame();
    let udp = Build::udp(53, &QUERY).client(from(80)).server(SERVER_V4).frame();
    let (offset, length) = (tcp.transport + 12, udp.transport + 4);
    match number % 4 {
        0 => tcp.patched(16, &[0, 99]),
        1 => tcp.patched(16, &[0, 39]),
        2 => tcp.patched(offset, &[0x40]),
        _ => udp.patched(length, &[0, 7]),
    }
}

/// Packets not for dotd: other ports, later fragments, and dotd's ports at the client's end.
fn foreign(number: u64) -> Frame {
    let build = match number % 4 {
        0 => Build::tcp(443, SYN, 7, &[]),
        1 => Build::udp(5353, &QUERY),
        2 => Build::tcp(853, PSH | ACK, 7, &CLIENT_HELLO).fragment(Fragment::Later(9)),
        _ => Build::tcp(40_000, ACK, 7, b"x").client_port(853),
    };
    build.client(from(81)).server(SERVER_V4).frame()
}

/// Every class, and its counters. A SYN may meet a ban, its rate, its budget, or the gate of what it carries.
fn classes() -> Vec<Class> {
    const BEGINNINGS: &[&str] = &[
        "banned",
        "syn",
        "dot_syn_rate",
        "do53_syn_rate",
        "cost",
        "cleartext_on_dot",
        "tls_on_do53",
        "client_hello",
    ];
    let beginning = |name, make| Class { name, reasons: BEGINNINGS, make };
    vec![
        beginning("SYN of a banned client", |_| to_us(Build::tcp(53, SYN, 7, &[]), BANNED)),
        Class { name: "from a denied client", reasons: &["denied"], make: |number| any(number, DENIED) },
        beginning("SYN over its budget", |_| to_us(Build::tcp(853, SYN, 7, &[]), SPENT)),
        beginning("SYN to 853 over its rate", |_| to_us(Build::tcp(853, SYN, 7, &[]), "10.53.0.68")),
        beginning("SYN to 53 over its rate", |_| to_us(Build::tcp(53, SYN, 7, &[]), "10.53.0.69")),
        beginning("cleartext in a SYN", |_| to_us(Build::tcp(853, SYN, 7, &CLEARTEXT_QUERY), "10.53.0.70")),
        beginning("TLS in a SYN to 53", |_| to_us(Build::tcp(53, SYN, 7, &CLIENT_HELLO), "10.53.0.71")),
        Class {
            name: "query over its rate",
            reasons: &["do53_datagram", "do53_query_rate"],
            make: |_| to_us(Build::udp(53, &QUERY), "10.53.0.72"),
        },
        Class {
            name: "query over its rate, IPv6",
            reasons: &["do53_datagram", "do53_query_rate"],
            make: |number| {
                let client = IpAddr::from([0xfd53, 0, 0x17, 0xab, 0, 0, 0, number as u16]);
                Build::udp(53, &QUERY).client(client).server(SERVER_V6).frame()
            },
        },
        Class {
            name: "datagram to 853",
            reasons: &["udp_on_dot"],
            make: |_| to_us(Build::udp(853, b"quic?"), "10.53.0.73"),
        },
        Class {
            name: "octets of no connection",
            reasons: &["unknown_flow"],
            make: |_| to_us(Build::tcp(853, PSH | ACK, 7, b"hello"), "10.53.0.74"),
        },
        Class {
            name: "ACK",
            reasons: &["control"],
            make: |_| to_us(Build::tcp(853, ACK, 7, &[]), "10.53.0.75"),
        },
        Class {
            name: "first fragment",
            reasons: &["tcp_fragment"],
            make: |_| {
                let build = Build::tcp(853, PSH | ACK, 7, &CLIENT_HELLO).fragment(Fragment::First);
                to_us(build, "10.53.0.76")
            },
        },
        Class {
            name: "lie",
            reasons: &[
                "malformed_ip_length",
                "malformed_tcp_truncated",
                "malformed_tcp_data_offset",
                "malformed_udp_length",
            ],
            make: lie,
        },
        Class { name: "foreign", reasons: &[], make: foreign },
    ]
}

/// The counts, by `verdict reason`.
fn rows(stats: &Stats) -> BTreeMap<String, u64> {
    let rows = stats.0["packets"].as_array().expect("the kernel half's counters");
    let row = |row: &serde_json::Value| {
        let text = |key: &str| row[key].as_str().expect("a name").to_owned();
        (format!("{} {}", text("verdict"), text("reason")), row["count"].as_u64().expect("a number"))
    };
    rows.iter().map(row).collect()
}

/// Waits until the counters do not change any more.
fn at_rest(dotd: &Server) -> BTreeMap<String, u64> {
    let mut last = BTreeMap::new();
    eventually("the counters stand still", || {
        let now = rows(&dotd.stats());
        let is_still = now == last;
        last.clone_from(&now);
        is_still.then_some(now)
    })
}

/// Sends all classes mixed and waits until they were judged; returns the counts, by `verdict reason`.
fn flood(network: &Network, dotd: &Server) -> BTreeMap<String, u64> {
    let before = at_rest(dotd);
    let wire = Wire::open(network);
    for number in 0..EACH {
        for class in classes() {
            let octets = wire.addressed((class.make)(number));
            eventually(class.name, || wire.send_octets(&octets).then_some(()));
        }
    }
    let after = at_rest(dotd);
    after.into_iter().map(|(name, count)| (name.clone(), count - before[&name])).collect()
}

/// The sum over all verdicts with one of these reasons.
fn sum(counted: &BTreeMap<String, u64>, reasons: &[&str]) -> u64 {
    let is_of = |name: &str| reasons.iter().any(|reason| name.split(' ').nth(1) == Some(reason));
    counted.iter().filter(|(name, _)| is_of(name)).map(|(_, count)| count).sum()
}

/// Asserts the sums of each class, of classes that share counters, and of all classes.
fn assert_sums(counted: &BTreeMap<String, u64>) {
    let mut sent: BTreeMap<&[&str], u64> = BTreeMap::new();
    for class in classes().iter().filter(|class| !class.reasons.is_empty()) {
        *sent.entry(class.reasons).or_default() += EACH;
    }
    for (reasons, count) in &sent {
        assert_eq!(sum(counted, reasons), *count, "{reasons:?} in {counted:?}");
    }
    let total: u64 = counted.values().sum();
    assert_eq!(total, sent.values().sum::<u64>(), "{counted:?}");
}

/// Spends the handshake budget of [`SPENT`] for a minute: hellos that break off, which no gate refuses.
fn spend(network: &Network, dotd: &Server) {
    network.client.ip(&format!("address add {SPENT}/24 dev {CLIENT_INTERFACE}"));
    let begin = |_| network.client.run(|| connect(SPENT)).expect("dotd listens");
    let mut streams: Vec<_> = (0..30).map(begin).collect();
    for stream in &mut streams {
        let mut hello = CLIENT_HELLO.to_vec();
        hello.resize(5 + 512, 0);
        stream.write_all(&hello).expect("dotd reads");
    }
    for mut stream in streams {
        let _ = read_to_close(&mut stream);
    }
    dotd.counts("all have failed", |stats| stats.sum("handshakes", "failed_") >= 30);
    let said = || dotd.operate(&["xdp", "show"]);
    eventually("its budget is spent", || said().has("1 clients refused now").then_some(()));
    network.client.ip(&format!("address delete {SPENT}/24 dev {CLIENT_INTERFACE}"));
}

/// A connection to dotd from one of the client's addresses.
fn connect(source: &str) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    let source: IpAddr = source.parse().expect("an address");
    socket.bind(&SocketAddr::new(source, 0).into())?;
    socket.connect(&SocketAddr::new(SERVER_V4, DOT_PORT).into())?;
    socket.set_read_timeout(Some(DEADLINE))?;
    Ok(socket.into())
}

/// Goal: under a flood of every class at once (banned, denied, over budget and rate, through each gate, lies,
/// fragments, and what passes) the counters add up to the frames sent to our ports, class by class, and each reason was
/// given; packets that are not for dotd are not counted. A client beside it is served. Method: each class as often,
/// mixed frame by frame, in both modes of XDP.
#[test]
fn sums_are_exact_under_everything_at_once() {
    require!(Root, Bpf, Command("kdig"));
    for mode in ["native", "generic"] {
        let (network, dotd) = embedded(&config(mode));
        spend(&network, &dotd);
        assert!(dotd.operate(&["ban", "add", BANNED]).is_success);
        let counted = flood(&network, &dotd);
        assert_sums(&counted);
        for dropped in [
            "banned",
            "denied",
            "cost",
            "dot_syn_rate",
            "do53_syn_rate",
            "do53_query_rate",
            "cleartext_on_dot",
            "tls_on_do53",
            "udp_on_dot",
            "tcp_fragment",
        ] {
            assert!(counted[&format!("drop {dropped}")] > 0, "{mode}: nothing dropped for {dropped}");
        }
        assert_eq!(counted["drop banned"], EACH, "{mode}: {counted:?}");
        let would: u64 = counted.iter().filter(|(name, _)| name.starts_with("would")).map(|row| row.1).sum();
        assert_eq!(would, 0, "{mode}: {counted:?}");
        let said = kdig(&network.client, SERVER_V4, "+tls www.dotd.test A");
        assert!(is_answered_over_tls(&said), "{mode}: {}", said.text);
        dotd.stop();
    }
}

/// Goal: where everything only counts, the same flood is counted as exactly: each limit, each gate and each ban of the
/// engine counts what it would have refused, and only an operator's lists and malformed packets cause drops. Method: as
/// above; the client was banned by the engine, for garbage.
#[test]
fn sums_are_exact_where_everything_only_counts() {
    require!(Root, Bpf);
    let (network, dotd) = embedded(&counting("native"));
    spend(&network, &dotd);
    get_banned(&network, &dotd);
    let counted = flood(&network, &dotd);
    assert_sums(&counted);
    for reason in ["banned", "cost", "dot_syn_rate", "do53_syn_rate", "do53_query_rate"] {
        assert!(counted[&format!("would_drop {reason}")] > 0, "{reason}: {counted:?}");
    }
    for reason in ["cleartext_on_dot", "tls_on_do53", "udp_on_dot"] {
        assert_eq!(counted[&format!("would_drop {reason}")], EACH, "{reason}: {counted:?}");
    }
    let lies = 4 * (EACH / 4);
    let dropped: u64 = counted.iter().filter(|(name, _)| name.starts_with("drop")).map(|row| row.1).sum();
    assert_eq!(dropped, counted["drop denied"] + counted["drop tcp_fragment"] + lies, "{counted:?}");
    assert_eq!(counted["drop denied"], EACH);
    dotd.stop();
}

/// Sends garbage from [`BANNED`] until the engine bans it.
fn get_banned(network: &Network, dotd: &Server) {
    network.client.ip(&format!("address add {BANNED}/24 dev {CLIENT_INTERFACE}"));
    eventually("the engine bans it", || {
        for _ in 0..10 {
            let Ok(mut stream) = network.client.run(|| connect(BANNED)) else { continue };
            let _ = stream.write_all(b"GET / HTTP/1.0\r\n\r\n");
            let _ = read_to_close(&mut stream);
        }
        dotd.operate(&["ban", "list"]).has("garbage").then_some(())
    });
    network.client.ip(&format!("address delete {BANNED}/24 dev {CLIENT_INTERFACE}"));
}
