//! Floods against the real server: a client above its rate gets its rate, and other clients are not affected.
//!
//! Before: dotd on one end of a veth pair, raw frames from the other. After: counters show which packets passed.
//! Never: lets the clock decide: time is only read to compute what a rate allows.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use dot_common::maps;
use dot_tests::{
    frames::{ACK, Build, FIN, QUERY, RST, SYN},
    harness::{
        backends::Backend,
        clients::{DOT_PORT, is_answered_over_tls, kdig, tcp, tool},
        config::Config,
        dot::Dot,
        eventually,
        flood::{Flood, Wire},
        message::{A, Query},
        netns::{CLIENT_INTERFACE, CLIENT_V4, Network, SERVER_V4, SERVER_V6},
        offer::Offer,
        scene::embedded,
        server::Server,
        stats::Stats,
    },
    require,
};
use nix::sys::signal::Signal;

/// The number of frames after which a flood ends by itself, even if a test forgets it.
const FRAMES_MAX: u64 = 5_000_000;

/// Waits until two reads in a row give the same: then every frame in transit has arrived.
fn settled(dotd: &Server, count: impl Fn(&Stats) -> u64) -> u64 {
    let mut last = u64::MAX;
    eventually("the counters stand still", || {
        let now = count(&dotd.stats());
        let is_still = now == last;
        last = now;
        is_still.then_some(now)
    })
}

const PER_SECOND: u64 = 500;
/// Twenty seconds of the rate: a sender that stalls for a shorter time loses nothing.
const BURST: u64 = 10_000;

/// How many packets of a flood the limit let through, and the shortest and longest time it can have taken.
struct Measured {
    admitted: u64,
    within: [Duration; 2],
}

/// Floods from two threads until the burst is spent and much of the rate was used.
fn measure(
    network: &Network,
    dotd: &Server,
    make: impl Fn(u64) -> Build + Send + Clone + 'static,
    count: impl Fn(&Stats) -> u64,
) -> Measured {
    let before = Instant::now();
    assert!(Wire::open(network).send(make(0).frame()));
    dotd.counts("the first frame is counted", |stats| count(stats) == 1);
    let begun = Instant::now();
    let floods: Vec<Flood> = (1..=2u64)
        .map(|thread| {
            let make = make.clone();
            let next = move |number| (number < FRAMES_MAX).then(|| make(number * 2 + thread).frame());
            Flood::start(network, next)
        })
        .collect();
    dotd.counts("burst and rate are used", |stats| count(stats) > BURST + 3 * PER_SECOND);
    let almost_ended = Instant::now();
    let sent: u64 = floods.into_iter().map(Flood::stop).sum();
    let admitted = settled(dotd, count);
    assert!(sent > 2 * admitted, "{sent} frames are no flood");
    Measured { admitted, within: [almost_ended - begun, before.elapsed()] }
}

/// Goal: of a source above its rate burst + rate · t packets pass, never more and at most 2 % less, from two CPUs at
/// once, and while it changes between all /64 of its /56; another client below its rate gets everything. Method: three
/// raw floods, one for each class, and kdig sessions meanwhile; time is the kernel's monotonic clock, read before and
/// after the flood.
#[test]
fn a_source_over_its_rate_gets_its_rate() {
    require!(Root, Bpf, Command("kdig"));
    let (rate, burst) = (PER_SECOND.to_string(), BURST.to_string());
    let keys = [
        ("syn_per_second", &*rate),
        ("syn_burst", &burst),
        ("syn_over", "\"drop\""),
        ("udp53_per_second", &rate),
        ("udp53_burst", &burst),
        ("udp53_over", "\"drop\""),
    ];
    let source = |last| IpAddr::V4(Ipv4Addr::new(10, 53, 0, last));
    let dot_syn = move |_| Build::tcp(853, SYN, 7, &[]).client(source(99)).server(SERVER_V4);
    let do53_syn = move |_| Build::tcp(53, SYN, 7, &[]).client(source(98)).server(SERVER_V4);
    let hopping_query = |number: u64| {
        let hop = Ipv6Addr::new(0xfd53, 0, 0x17, 0xab00 | (number & 0xff) as u16, 0, 0, 0, number as u16);
        Build::udp(53, &QUERY).client(hop.into()).server(SERVER_V6)
    };
    type Case = (&'static str, &'static str, Box<dyn Fn(&Network, &Server) -> Measured>);
    let cases: [Case; 3] = [
        (
            "syn",
            "dot_syn_rate",
            Box::new(move |network, dotd| {
                measure(network, dotd, dot_syn, |stats| stats.packets("pass", "syn"))
            }),
        ),
        (
            "syn",
            "do53_syn_rate",
            Box::new(move |network, dotd| {
                measure(network, dotd, do53_syn, |stats| stats.packets("pass", "syn"))
            }),
        ),
        (
            "do53_datagram",
            "do53_query_rate",
            Box::new(move |network, dotd| {
                measure(network, dotd, hopping_query, |stats| stats.packets("pass", "do53_datagram"))
            }),
        ),
    ];
    for (passes, reason, flood) in cases {
        let (network, dotd) = embedded(&Config::new().limits(&keys));
        let Measured { admitted, within: [shortest, longest] } = flood(&network, &dotd);
        let allowed = |time: Duration| BURST as f64 + PER_SECOND as f64 * time.as_secs_f64();
        println!(
            "{reason}: {admitted} admitted; {:.0} to {:.0} allowed",
            allowed(shortest),
            allowed(longest)
        );
        assert!(admitted as f64 >= 0.98 * allowed(shortest), "{reason}: {admitted}, too few");
        // The exact bound: two CPUs that race must not gain a packet.
        assert!(admitted as f64 <= allowed(longest) + 1.0, "{reason}: {admitted}, too many");
        let stats = dotd.stats();
        assert!(stats.packets("drop", reason) > admitted, "{reason}: too little was refused");
        assert_eq!(stats.packets("pass", passes), admitted);
        for _ in 0..5 {
            let said = kdig(&network.client, SERVER_V4, "+tls www.dotd.test A");
            assert!(is_answered_over_tls(&said), "beside {reason}: {}", said.text);
        }
        dotd.stop();
    }
}

/// The least number of questions of an innocent client during a flood, each over a new connection.
const QUESTIONS: usize = 1_000;
/// The number of questions for one run of kdig, which asks one after the other, over a connection for each.
const QUESTIONS_AT_ONCE: usize = 50;

/// An innocent client asks while a flood of the frames from `next` runs; at least 999 of 1,000 questions must be
/// answered over TLS, and the flood must last for all of them. Another client's session began before, and gets answers
/// all the time.
fn served_meanwhile(
    (network, dotd): (&Network, &Server),
    standing: &mut Dot,
    next: impl Fn(u64) -> Build + Send + 'static,
) {
    let seen = || {
        let stats = dotd.stats();
        stats.packets("pass", "") + stats.packets("drop", "")
    };
    let before = seen();
    let made = Arc::<AtomicU64>::default();
    let count = Arc::clone(&made);
    let flood = Flood::start(network, move |number| {
        count.store(number, Relaxed);
        (number < MANY_FRAMES_MAX).then(|| next(number).frame())
    });
    eventually("the flood is on", || (made.load(Relaxed) > 100_000).then_some(()));
    let questions = vec!["www.dotd.test A"; QUESTIONS_AT_ONCE].join(" ");
    let mut answered = 0;
    for round in 1..=(QUESTIONS / QUESTIONS_AT_ONCE) as u64 {
        let said = kdig(&network.client, SERVER_V4, &format!("+tls +timeout=5 +retry=1 {questions}"));
        answered += said.text.matches("status: NOERROR").count();
        let reply = standing.exchange(&Query::new(round as u16, "www.dotd.test", A).octets());
        assert_eq!(reply.rcode(), 0, "a session from before the flood");
        // The questions are spread over all of the flood.
        let share = FRAMES * round * QUESTIONS_AT_ONCE as u64 / QUESTIONS as u64;
        eventually("the flood goes on", || (seen() - before > share).then_some(()));
    }
    let is_on = made.load(Relaxed) < MANY_FRAMES_MAX;
    let sent = flood.stop();
    println!("{answered} of {QUESTIONS} answered beside {sent} frames");
    assert!(is_on, "the flood was over before the last question");
    assert!(answered * 1_000 >= QUESTIONS * 999, "{answered} of {QUESTIONS} answered");
}

/// The frames of a flood that goes on as long as the client asks.
const MANY_FRAMES_MAX: u64 = 50_000_000;
/// The number of addresses of a spoofed flood.
const SOURCES: u64 = 1_000_000;
/// The least number of frames that XDP must see, the innocent client's included, because some do not fit into the
/// pair's ring.
const FRAMES: u64 = SOURCES + SOURCES / 5;

/// One of a million addresses that no machine has.
fn spoofed(number: u64) -> IpAddr {
    Ipv4Addr::from_bits(0x0a80_0000 + (number % SOURCES) as u32).into()
}

/// One of a million networks of IPv6, each a client of its own.
fn spoofed_v6(number: u64) -> IpAddr {
    let network = 0x2001_0db8_0000_0000 | (number % SOURCES) << 8;
    Ipv6Addr::from_bits(u128::from(network) << 64 | 7).into()
}

/// Goal: spoofed floods from a million addresses evict no client and block none: at least 999 of 1,000 questions of an
/// innocent client within the limits are answered. Method: SYN to 853 and queries to 53, raw, from one end; kdig from
/// there too, with a new connection for each question.
#[test]
fn spoofed_floods_do_not_hurt_the_innocent() {
    require!(Root, Bpf, Command("kdig"));
    let keys = [("syn_per_second", "1000"), ("syn_burst", "2000"), ("udp53_per_second", "200")];
    let (network, dotd) = embedded(&Config::new().limits(&keys));
    // SYN-ACKs for them get no answer, as on a real network.
    network.server.ip(&format!("route add default via {CLIENT_V4}"));
    let mut standing = Dot::connect(&network.client, SERVER_V4);
    served_meanwhile((&network, &dotd), &mut standing, |number| {
        let client_port = 1024 + (number >> 20) as u16;
        let syn = Build::tcp(853, SYN, number as u32, &[]).client_port(client_port);
        syn.client(spoofed(number)).server(SERVER_V4)
    });
    served_meanwhile((&network, &dotd), &mut standing, |number| {
        Build::udp(53, &QUERY).client(spoofed(number)).server(SERVER_V4)
    });
    let stats = dotd.stats();
    assert!(stats.packets("pass", "syn") > SOURCES, "the flood did not come through XDP");
    assert!(stats.packets("pass", "do53_datagram") > SOURCES);
    assert!(stats.sum("handshakes", "") >= 2 * QUESTIONS as u64, "kdig did not connect for each question");
    dotd.stop();
}

/// Goal: FIN, RST and ACK without a connection have no effect on clients: new connections are made during each of these
/// floods, and a session goes on although segments are sent in its name. Method: raw segments from a million addresses,
/// one in 64 with the addresses and ports of a standing session; kdig with a new connection for each question. Covers:
///
#[test]
fn floods_of_stray_segments_do_not_hurt_the_innocent() {
    require!(Root, Bpf, Command("kdig"));
    let (network, dotd) = embedded(&Config::new());
    // To a port where the stack answers with a RST.
    network.server.ip(&format!("route add default via {CLIENT_V4}"));
    let stream = tcp(&network.client, SocketAddr::new(SERVER_V4, DOT_PORT));
    let port = stream.local_addr().expect("it is connected").port();
    let mut standing = Dot::over(stream, SERVER_V4, &Offer::default()).expect("a handshake");
    for (count, stray) in (1..).zip([FIN, RST, ACK]) {
        served_meanwhile((&network, &dotd), &mut standing, move |number| {
            let segment = Build::tcp(DOT_PORT, stray, (number as u32).wrapping_mul(40_503), &[]);
            let (client, client_port) = match number % 64 {
                0 => (CLIENT_V4, port),
                _ => (spoofed(number), 1024 + (number >> 20) as u16),
            };
            segment.client(client).client_port(client_port).server(SERVER_V4)
        });
        assert!(dotd.stats().packets("pass", "control") > count * SOURCES, "it did not come through XDP");
    }
    assert_eq!(dotd.stats().difference(), [0; 3]);
    dotd.stop();
}

/// Goal: a flood of datagrams from many addresses does not affect a client on the allow list: each of its connections
/// passes where the second one of another client does not, and its session goes on. Method: raw queries and datagrams
/// to 853, over both IP versions, from more addresses than the limits' map has room for, the client's address among
/// them; a limit of one a second, which a neighbour reaches first.
#[test]
fn allowed_clients_are_beyond_a_flood_from_everywhere() {
    require!(Root, Bpf, Command("kdig"));
    assert!(SOURCES > 2 * u64::from(maps::RATE_MAX), "some entries are evicted");
    let keys = [("syn_per_second", "1"), ("syn_burst", "1"), ("syn_over", "\"drop\"")];
    let limits = Config::new().limits(&keys).set("xdp.limit", "udp53_per_second", "1").set(
        "xdp.limit",
        "udp53_burst",
        "1",
    );
    let (network, dotd) = embedded(&limits.set("xdp", "allow", &format!("[\"{CLIENT_V4}/32\"]")));
    network.server.ip(&format!("route add default via {CLIENT_V4}"));
    let wire = Wire::open(&network);
    let neighbour = || Build::tcp(DOT_PORT, SYN, 7, &[]).client(Ipv4Addr::new(10, 53, 0, 77).into());
    eventually("a neighbour is over its rate", || {
        wire.send(neighbour().server(SERVER_V4).frame());
        (dotd.stats().packets("drop", "dot_syn_rate") > 0).then_some(())
    });
    let refused = settled(&dotd, |stats| stats.packets("drop", "dot_syn_rate"));

    let mut standing = Dot::connect(&network.client, SERVER_V4);
    served_meanwhile((&network, &dotd), &mut standing, |number| {
        let build = if number % 4 == 0 { Build::udp(DOT_PORT, b"quic?") } else { Build::udp(53, &QUERY) };
        match number % 8 {
            1 => build.client(CLIENT_V4).server(SERVER_V4),
            2 | 6 => build.client(spoofed_v6(number)).server(SERVER_V6),
            _ => build.client(spoofed(number)).server(SERVER_V4),
        }
    });
    let stats = dotd.stats();
    assert!(stats.packets("pass", "do53_datagram") > SOURCES / 2, "the flood did not come through XDP");
    assert!(stats.packets("drop", "udp_on_dot") > SOURCES / 5);
    // Its connections, and the queries in its name.
    assert!(stats.packets("pass", "allowed") > QUESTIONS as u64 + SOURCES / 9);
    assert_eq!(stats.packets("drop", "dot_syn_rate"), refused, "no other client was to be refused");
    dotd.stop();
}

/// Goal: an allow-listed client is served while its whole prefix is above its rate; a new neighbour that is not listed
/// is not served, where SYNs above the rate are dropped. HUP puts limits and lists in force. Method: a flood from the
/// same /24, kdig from both.
#[test]
fn allowed_clients_are_served_under_their_neighbours_flood() {
    require!(Root, Bpf, Command("kdig"));
    const NEIGHBOUR: &str = "10.53.0.77";
    let keys = [("prefix_v4", "24"), ("syn_per_second", "1"), ("syn_burst", "1"), ("syn_over", "\"drop\"")];
    let (network, mut dotd) = embedded(&Config::new().limits(&[keys[0]]));
    network.client.ip(&format!("address add {NEIGHBOUR}/24 dev {CLIENT_INTERFACE}"));
    let from_neighbour = format!("-b {NEIGHBOUR} +tls +timeout=2 +retry=0 www.dotd.test A");
    let allow = Config::new().limits(&keys).set("xdp", "allow", &format!("[\"{CLIENT_V4}/32\"]"));
    dotd.rewrite_config(&allow);
    dotd.signal(Signal::SIGHUP);
    dotd.counts("the limits hold", |stats| stats.counter("control", "reloads_ok") == 1);

    let flood = Flood::start(&network, |number| {
        let source = Ipv4Addr::new(10, 53, 0, 100 + (number % 100) as u8);
        let syn = Build::tcp(853, SYN, number as u32, &[]).client(source.into()).server(SERVER_V4);
        (number < FRAMES_MAX).then(|| syn.frame())
    });
    dotd.counts("the prefix is over its rate", |stats| stats.packets("drop", "dot_syn_rate") > 1000);
    let refused = kdig(&network.client, SERVER_V4, &from_neighbour);
    assert!(!is_answered_over_tls(&refused), "a neighbour got through: {}", refused.text);
    for _ in 0..10 {
        let said = kdig(&network.client, SERVER_V4, "+tls +timeout=10 www.dotd.test A");
        assert!(is_answered_over_tls(&said), "{}", said.text);
    }
    assert!(flood.stop() > 1000);
    assert!(dotd.stats().packets("pass", "allowed") >= 10);

    // In count mode the same neighbour is served, and the packets that would have been refused are counted.
    dotd.rewrite_config(&allow.set("xdp.limit", "mode", "\"count\""));
    dotd.signal(Signal::SIGHUP);
    dotd.counts("limits only count", |stats| stats.counter("control", "reloads_ok") == 2);
    eventually("it is counted", || {
        assert!(is_answered_over_tls(&kdig(&network.client, SERVER_V4, &from_neighbour)));
        (dotd.stats().packets("would_drop", "dot_syn_rate") > 0).then_some(())
    });
    dotd.stop();
}

/// Goal: a query over UDP above its client's rate gets TC=1 from XDP, and real clients come back over TCP and get their
/// answer, over both families. Method: NSD on port 53, a rate of one a second, kdig and dig until they report that they
/// changed to TCP; every single one must be answered.
#[test]
fn queries_over_the_rate_come_back_over_tcp() {
    require!(Root, Bpf, Command("nsd"), Command("kdig"), Command("dig"));
    let network = Network::new();
    let servers =
        [SERVER_V4, SERVER_V6].map(|address| Backend::nsd_at(&network, SocketAddr::new(address, 53)));
    let keys = [("udp53_per_second", "1"), ("udp53_burst", "1")];
    // A veth in native mode loses frames that XDP sends back, unless its peer has a native program too.
    let dotd = Server::start(&network, &Config::new().limits(&keys).xdp("generic"));
    for (count, (program, words, says)) in (1..).zip([
        ("kdig", "+retry=0 www.dotd.test A", "retrying over TCP"),
        ("kdig", "+retry=0 +edns +dnssec +cookie www.dotd.test A", "retrying over TCP"),
        ("dig", "+tries=1 www.dotd.test A", "Truncated, retrying in TCP mode"),
        ("dig", "+tries=1 +noedns www.dotd.test A", "Truncated, retrying in TCP mode"),
    ]) {
        for server in &servers {
            let at = format!("@{}", server.address.ip());
            let all: Vec<&str> = [&*at].into_iter().chain(words.split(' ')).collect();
            eventually("a client goes over to TCP", || {
                let said = tool(&network.client, program, &all);
                assert!(said.has("status: NOERROR") && said.has("192.0.2.80"), "{program}: {}", said.text);
                let complaint =
                    ["malformed", "extra", "Warning", "ERROR: "].iter().find(|word| said.has(word));
                assert!(complaint.is_none(), "{program} does not like it: {}", said.text);
                said.has(says).then_some(())
            });
        }
        assert!(dotd.stats().packets("answer", "do53_query_rate") >= count);
    }
    dotd.stop();
}
