//! Banned clients: in the kernel half, on the command line, and over a restart.
//!
//! Before: a ban in a map, or an operator's command. After: frames were dropped, and counted on their ban, until it
//! ended.

use std::{
    net::{IpAddr, Ipv4Addr},
    os::fd::AsFd,
    thread,
    time::Duration,
};

use dot_common::{
    ban::{Ban, Cause},
    charge::Charge,
    maps::{BANS_MAX, MEMO_MAX},
    network::Network,
    settings::{Gate, Over, Settings},
    verdict::{Action, Reason, Verdict},
};
use dot_tests::{
    frames::{ACK, Build, CLEARTEXT_QUERY, CLIENT_HELLO, PSH, QUERY, SYN, shapes},
    harness::{
        clients::{DOT_PORT, is_answered_over_tls, kdig, tcp_from},
        config::Config,
        dot::{Dot, End},
        eventually,
        flood::Wire,
        message::{A, Query},
        netns::{CLIENT_INTERFACE, CLIENT_V4, SERVER_V4, SERVER_V6, address},
        offer::Offer,
        scene::embedded,
        server::Server,
    },
    require,
    xdp_field::{isolated, listeners},
    xdp_lab::{Lab, XDP_DROP, XDP_PASS, settings},
};
use dot_userspace::{
    config::{Xdp as XdpConfig, XdpMode},
    xdp::{Charges, ListenerGroup, Xdp, start},
};
use nix::{
    sys::signal::Signal,
    time::{ClockId, clock_gettime},
};
use serde_json::Value;

fn ban(cause: Cause, until_ns: u64) -> Ban {
    Ban { until_ns, cause: cause as u32, bits: 32, ..Ban::default() }
}

/// The clock by which bans end.
fn monotonic_ns() -> u64 {
    nanoseconds(ClockId::CLOCK_MONOTONIC)
}

/// The same clock at the kernel's last tick, which the kernel half uses.
fn tick_ns() -> u64 {
    nanoseconds(ClockId::CLOCK_MONOTONIC_COARSE)
}

fn nanoseconds(clock: ClockId) -> u64 {
    let now = Duration::from(clock_gettime(clock).expect("a clock that every Linux has"));
    u64::try_from(now.as_nanos()).unwrap()
}

/// One packet of each kind that is judged.
fn kinds() -> [Build; 5] {
    [
        Build::tcp(853, SYN, 1, &[]),
        Build::tcp(8853, PSH | ACK, 1, &CLIENT_HELLO),
        Build::tcp(53, ACK, 1, &[]),
        Build::udp(53, &QUERY),
        Build::udp(853, b"quic?"),
    ]
}

/// Goal: a banned client gets nothing, in any shape of headers and over any transport, each packet is a hit of its ban,
/// its neighbours are treated as before, and an expired ban has no effect. Method: each shape and kind from four
/// clients.
#[test]
fn banned_clients_get_nothing() {
    let settings = Settings { bans: 3, ..settings(Gate::Pass) };
    let Some(mut lab) = Lab::open("banned_clients_get_nothing", &settings) else { return };
    let clients = [
        ("198.51.100.1", Some(u64::MAX)),
        ("198.51.100.2", None),
        ("198.51.100.3", Some(1)),
        ("2001:db8:5:1700::1", Some(u64::MAX)),
        ("2001:db8:5:17ff::2", Some(u64::MAX)),
        ("2001:db8:5:1800::1", None),
        ("2001:db8:5:1900::1", Some(1)),
    ];
    for (client, until_ns) in clients {
        if let Some(until_ns) = until_ns {
            lab.ban(address(client), &ban(Cause::Operator, until_ns));
        }
    }
    let mut hits = 0;
    for (name, shape) in shapes() {
        for (client, until_ns) in clients {
            for kind in kinds() {
                let build = shape(kind.clone());
                if build.source().is_ipv6() != address(client).is_ipv6() {
                    continue;
                }
                let is_banned = until_ns == Some(u64::MAX);
                let outcome = lab.judge(&build.client(address(client)).frame().octets);
                let found = outcome.verdict == Some(Verdict::drop(Reason::Banned));
                assert_eq!(found, is_banned, "{name}, {client}, {kind:?}: {outcome:?}");
                assert_eq!(outcome.action, if is_banned { XDP_DROP } else { XDP_PASS }, "{name}, {client}");
                hits += u64::from(is_banned);
            }
        }
    }
    let of = |client| lab.banned(address(client)).expect("the ban is there").hits;
    assert_eq!(of("198.51.100.1") + of("2001:db8:5:1700::1"), hits);
    assert_eq!(of("198.51.100.3") + of("2001:db8:5:1900::1"), 0, "a ban that is over was hit");
}

/// Goal: a ban of the engine refuses what begins, in any shape of headers, and is hit by that alone; segments of connections
/// that stand pass, whatever the CPU remembered first; an operator's ban refuses them too. Method: each shape and kind from
/// a client that is banned for each cause in turn.
#[test]
fn the_engines_bans_refuse_what_begins() {
    let settings = Settings { bans: 3, ..settings(Gate::Pass) };
    let Some(mut lab) = Lab::open("the_engines_bans_refuse_what_begins", &settings) else { return };
    let mut serial = 0;
    for cause in Cause::ALL {
        let is_operators = *cause == Cause::Operator;
        for (name, shape) in shapes() {
            serial += 1;
            let v6 = shape(Build::tcp(853, SYN, 1, &[])).source().is_ipv6();
            let client = address(if v6 { "2001:db8:5:1700::1" } else { "198.51.100.1" });
            lab.ban(client, &Ban { serial, ..ban(*cause, u64::MAX) });
            let mut hits = 0;
            for (kind, begins) in [
                (Build::tcp(853, ACK, 1, &[]), false),
                (Build::tcp(853, SYN, 1, &[]), true),
                (Build::tcp(853, ACK, 1, &[]), false),
                (Build::tcp(8853, PSH | ACK, 1, &CLIENT_HELLO), false),
                (Build::tcp(53, SYN | ACK, 1, &[]), false),
                (Build::tcp(53, SYN, 1, &[]), true),
                (Build::udp(53, &QUERY), true),
                (Build::udp(853, b"quic?"), true),
            ] {
                let outcome = lab.judge(&shape(kind.clone()).client(client).frame().octets);
                let is_refused = begins || is_operators;
                let found = outcome.verdict == Some(Verdict::drop(Reason::Banned));
                assert_eq!(found, is_refused, "{cause:?}, {name}, {kind:?}: {outcome:?}");
                assert_eq!(outcome.action, if is_refused { XDP_DROP } else { XDP_PASS }, "{name}, {kind:?}");
                hits += u64::from(is_refused);
            }
            assert_eq!(lab.banned(client).expect("the ban is there").hits, hits, "{cause:?}, {name}");
        }
    }
}

/// Goal: the allow list beats a ban, the deny list names its own reason first, and bans are asked where the settings say
/// that there are some. Method: one banned client of each IP version, and a table of settings.
#[test]
fn lists_come_before_bans() {
    let Some(mut lab) = Lab::open("lists_come_before_bans", &settings(Gate::Pass)) else { return };
    for (client, bits) in [("198.51.100.1", 32), ("2001:db8:5::1", 56)] {
        lab.ban(address(client), &ban(Cause::Garbage, u64::MAX));
        lab.allow(address(client), bits);
        lab.deny(address(client), bits);
    }
    let (banned, denied) = (Verdict::drop(Reason::Banned), Verdict::drop(Reason::Denied));
    let passes = Verdict::pass(Reason::Syn);
    for (bans, allow, deny, v4, v6) in [
        (0, 0, 0, passes, passes),
        (1, 0, 0, banned, passes),
        (2, 0, 0, passes, banned),
        (3, 0, 0, banned, banned),
        (3, 1, 0, passes, banned),
        (3, 3, 0, passes, passes),
        (3, 3, 1, denied, passes),
        (3, 0, 3, denied, denied),
    ] {
        lab.set(&Settings { bans, allow, deny, ..settings(Gate::Pass) });
        for (client, wanted) in [("198.51.100.1", v4), ("2001:db8:5::1", v6)] {
            let syn = Build::tcp(853, SYN, 1, &[]);
            let syn = if address(client).is_ipv6() { syn.v6() } else { syn };
            let found = lab.judge(&syn.client(address(client)).frame().octets).verdict;
            assert_eq!(found, Some(wanted), "{client} with bans {bans} allow {allow} deny {deny}");
        }
    }
}

/// Goal: a CPU whose cache has a banned client neither bans it longer nor loses a hit, also when other clients take its
/// place. Method: a thousand packets from each of two CPUs; then twice as many clients as a CPU's cache holds; a ban
/// that ends while its client is in the cache.
#[test]
fn remembered_bans_end_and_keep_their_hits() {
    let banning = Settings { bans: 1, ..settings(Gate::Pass) };
    let Some(mut lab) = Lab::open("remembered_bans_end_and_keep_their_hits", &banning) else { return };
    let client = address("198.51.100.1");
    let syn = |client| Build::tcp(853, SYN, 1, &[]).client(client).frame().octets;
    lab.ban(client, &ban(Cause::Garbage, u64::MAX));
    let hits = |lab: &Lab| lab.banned(client).expect("the ban is there").hits;
    match lab.race(&syn(client), 1000) {
        Some(counted) => assert_eq!(counted, [(Verdict::drop(Reason::Banned), 2000)]),
        None => println!("one CPU: no race"),
    }
    let before = hits(&lab);
    assert!(before == 2000 || before == 0, "{before}");
    for place in 0..2 * MEMO_MAX {
        lab.judge_as(&syn(client), None);
        lab.judge_as(&syn(Ipv4Addr::from_bits(0x0a00_0000 + place).into()), None);
    }
    assert_eq!(hits(&lab), before + u64::from(2 * MEMO_MAX));
    lab.surplus();
    assert_eq!(lab.judge(&syn(client)).verdict, Some(Verdict::drop(Reason::Banned)));

    let until = monotonic_ns() + 50_000_000;
    lab.ban(client, &ban(Cause::Garbage, until));
    loop {
        let found = lab.judge_as(&syn(client), Some(Verdict::drop(Reason::Banned)));
        if monotonic_ns() >= until {
            break;
        }
        assert_eq!(found, Some(XDP_DROP));
    }
    // The kernel half's clock shows its last tick.
    while tick_ns() <= until {
        thread::sleep(Duration::from_millis(1));
    }
    lab.surplus();
    let passes = lab.judge(&syn(client)).verdict;
    assert_eq!(passes, Some(Verdict::pass(Reason::Syn)), "the ban is over");
}

/// Goal: where limits only count, the engine's bans do too, and open no gate; an operator's ban holds; hits that a CPU
/// has not yet added to a ban are not added to the next one. Method: segments that every gate passes and that a gate
/// refuses, from one client that is banned for each cause in turn.
#[test]
fn count_mode_is_the_engines_alone() {
    let counting = Settings { bans: 3, over: Over::Count as u8, ..settings(Gate::Drop) };
    let Some(mut lab) = Lab::open("count_mode_is_the_engines_alone", &counting) else { return };
    let would = Verdict { action: Action::WouldDrop, reason: Reason::Banned };
    for cause in Cause::ALL {
        let client = address("198.51.100.1");
        lab.ban(client, &Ban { serial: *cause as u16, ..ban(*cause, u64::MAX) });
        let is_operators = *cause == Cause::Operator;
        for (build, counted) in [
            (Build::tcp(853, SYN, 1, &[]), would),
            (Build::tcp(853, ACK, 1, &[]), Verdict::pass(Reason::Control)),
            (Build::udp(53, &QUERY), would),
            (Build::udp(853, b"quic?"), Verdict::drop(Reason::UdpOnDot)),
            (Build::tcp(853, SYN, 1, &CLEARTEXT_QUERY), Verdict::drop(Reason::CleartextOnDot)),
        ] {
            let wanted = if is_operators { Verdict::drop(Reason::Banned) } else { counted };
            let found = lab.judge(&build.clone().client(client).frame().octets).verdict;
            assert_eq!(found, Some(wanted), "{cause:?}, {build:?}");
        }
        let hits = lab.banned(client).expect("the ban is there").hits;
        assert_eq!(hits, if is_operators { 5 } else { 2 }, "{cause:?}");
    }
}

fn bans(dotd: &Server) -> Vec<Value> {
    let said = dotd.operate(&["ban", "list", "--json"]);
    let rows: Value =
        serde_json::from_str(&said.text).unwrap_or_else(|error| panic!("{error}: {}", said.text));
    rows.as_array().expect("a list").clone()
}

/// Goal: an operator bans a client and sees what it tries, a reload and a crash keep the ban, lifting it admits the
/// client; other clients are not affected. Method: kdig from the client and its neighbour, and the verbs of the command
/// line.
#[test]
fn operators_ban_and_lift() {
    require!(Root, Bpf, Command("kdig"));
    const NEIGHBOUR: &str = "10.53.0.77";
    let (network, mut dotd) = embedded(&Config::new());
    network.client.ip(&format!("address add {NEIGHBOUR}/24 dev {CLIENT_INTERFACE}"));
    let serves = |words: &str| {
        is_answered_over_tls(&kdig(
            &network.client,
            SERVER_V4,
            &format!("{words} +tls +timeout=2 dotd.test A"),
        ))
    };
    assert_eq!(dotd.operate(&["ban", "list"]).text, "no bans\n");
    let client = CLIENT_V4.to_string();
    let said = dotd.operate(&["ban", "add", &client, "--for", "1h", "--reason", "ticket 4711"]);
    assert!(said.is_success && said.has("10.53.0.2/32 banned for 1 h, 0 hits"), "{}", said.text);
    assert!(!serves(""), "a banned client was served");
    assert!(serves(&format!("-b {NEIGHBOUR}")), "its neighbour was not served");
    assert!(is_answered_over_tls(&kdig(&network.client, SERVER_V6, "+tls dotd.test A")));
    let rows = bans(&dotd);
    let [row] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!((&row["prefix"], &row["cause"]), (&"10.53.0.2/32".into(), &"operator".into()), "{row}");
    assert_eq!(row["reason"], "ticket 4711");
    assert!(row["hits"].as_u64() > Some(0), "{row}");
    assert_eq!(row["hits"].as_u64(), Some(dotd.stats().packets("drop", "banned")));
    let table = dotd.operate(&["ban", "list"]);
    assert!(table.has("PREFIX") && table.has("10.53.0.2/32") && table.has("ticket 4711"), "{}", table.text);
    let shown = dotd.operate(&["xdp", "show"]);
    assert!(shown.has("bans         1 now, made so far: 1 by operator"), "{}", shown.text);

    dotd.signal(Signal::SIGHUP);
    dotd.counts("the reload", |stats| stats.counter("control", "reloads_ok") == 1);
    assert!(!serves(""), "a reload lifted the ban");

    dotd.signal(Signal::SIGKILL);
    drop(dotd.wait());
    let dotd = Server::start(&network, &Config::new());
    let rows = bans(&dotd);
    assert_eq!(rows.len(), 1, "a crash lifted the ban");
    assert_eq!((&rows[0]["cause"], &rows[0]["reason"]), (&"operator".into(), &"".into()), "{rows:?}");
    assert!(!serves(""), "a crash lifted the ban");

    let said = dotd.operate(&["ban", "del", "10.53.0.2/32"]);
    assert!(said.is_success && said.has("no longer banned"), "{}", said.text);
    assert!(serves(""), "the ban was lifted");
    let said = dotd.operate(&["ban", "del", &client]);
    assert!(!said.is_success && said.text == "dotd: 10.53.0.2 is not banned\n", "{}", said.text);
    dotd.stop();

    // An orderly end keeps no bans: the next start has none.
    let dotd = Server::start(&network, &Config::new());
    assert_eq!(bans(&dotd).len(), 0);
    dotd.stop();
}

/// Goal: an operator's ban ends the sessions that its client has, on all workers, and says how many; a neighbour's session
/// goes on, and so does one of a client on the allow list, for which no ban holds. Method: three sessions of one client and
/// one of a neighbour; the ban, what each session hears, what is counted.
#[test]
fn an_operators_ban_ends_sessions() {
    require!(Root, Bpf);
    const NEIGHBOUR: &str = "10.53.0.77";
    let config = Config::new().set("server", "workers", "2");
    let (network, mut dotd) = embedded(&config);
    network.client.ip(&format!("address add {NEIGHBOUR}/24 dev {CLIENT_INTERFACE}"));
    let query = |id| Query::new(id, "dotd.test", A).octets();
    let begin = |source: Option<&str>| {
        let mut session = match source {
            None => Dot::connect(&network.client, SERVER_V4),
            Some(source) => {
                let tcp = tcp_from(&network.client, address(source), (SERVER_V4, DOT_PORT).into());
                Dot::over(tcp, SERVER_V4, &Offer::default()).expect("a handshake")
            }
        };
        assert_eq!(session.exchange(&query(1)).rcode(), 0);
        session
    };
    let mut sessions: Vec<_> = (0..3).map(|_| begin(None)).collect();
    let mut beside = begin(Some(NEIGHBOUR));
    let client = CLIENT_V4.to_string();
    let said = dotd.operate(&["ban", "add", &client, "--for", "1h"]);
    assert!(said.is_success && said.has(" for 1 h, 0 hits; 3 sessions ended\n"), "{}", said.text);
    dotd.counts("they ended", |stats| stats.counter("session_ends", "banned") == 3);
    for session in &mut sessions {
        assert_eq!(session.end(), End::Reset);
    }
    assert_eq!(beside.exchange(&query(2)).rcode(), 0, "its neighbour's session");
    let said = dotd.operate(&["ban", "add", &client, "--for", "2h", "--json"]);
    assert!(said.has("\"sessions_ended\":0,\"workers_silent\":0"), "{}", said.text);

    dotd.rewrite_config(&config.set("xdp", "allow", &format!("[\"{NEIGHBOUR}/32\"]")));
    dotd.signal(Signal::SIGHUP);
    dotd.counts("the reload", |stats| stats.counter("control", "reloads_ok") == 1);
    let said = dotd.operate(&["ban", "add", NEIGHBOUR]);
    assert!(said.has("; 0 sessions ended\n"), "{}", said.text);
    assert_eq!(beside.exchange(&query(3)).rcode(), 0, "no ban holds for it");
    dotd.stop();
}

/// Goal: a ban that is made longer keeps its hits, one that is made anew has none. Method: frames from one address, faster
/// than the kernel's clock ticks; the list after each verb.
#[test]
fn operators_see_each_bans_own_hits() {
    require!(Root, Bpf);
    let (network, dotd) = embedded(&Config::new());
    const CLIENT: &str = "10.128.0.7";
    let verb = |words: &[&str]| {
        let said = dotd.operate(&[&["ban"], words].concat());
        assert!(said.is_success, "{}", said.text);
    };
    let hits = || bans(&dotd)[0]["hits"].as_u64().expect("a number");
    verb(&["add", CLIENT, "--for", "1h"]);
    let wire = Wire::open(&network);
    let syn = Build::tcp(853, SYN, 1, &[]).client(address(CLIENT)).server(SERVER_V4);
    let syn = wire.addressed(syn.frame());
    let sent = (0..1000).filter(|_| wire.send_octets(&syn)).count() as u64;
    dotd.counts("they met the ban", |stats| stats.packets("drop", "banned") == sent);
    assert_eq!(hits(), sent);
    verb(&["add", CLIENT, "--for", "2h"]);
    assert_eq!(hits(), sent, "a longer ban is the same");
    verb(&["del", CLIENT]);
    verb(&["add", CLIENT, "--for", "1h"]);
    assert_eq!(hits(), 0, "another ban's hits");
    dotd.stop();
}

/// Goal: a ban ends by itself, and is removed. Method: bans for a second; kdig until it is answered.
#[test]
fn bans_expire() {
    require!(Root, Bpf, Command("kdig"));
    let (network, dotd) = embedded(&Config::new());
    let said = dotd.operate(&["ban", "add", &CLIENT_V4.to_string(), "--for", "1s"]);
    assert!(said.is_success, "{}", said.text);
    eventually("the client is let in again", || {
        let said = kdig(&network.client, SERVER_V4, "+tls +timeout=2 dotd.test A");
        is_answered_over_tls(&said).then_some(())
    });
    assert!(bans(&dotd).is_empty());
    eventually("the ban is forgotten", || {
        let said = dotd.operate(&["status"]);
        said.has("bans         0 now, made so far: 1 by operator").then_some(())
    });
    dotd.stop();
}

/// Goal: what is no ban is refused in a line that says why. Method: a table of wrong words; then dotd without XDP.
///
#[test]
fn wrong_bans_are_refused() {
    require!(Root, Bpf);
    let (_network, dotd) = embedded(&Config::new());
    let long = "x".repeat(201);
    for (words, line) in [
        (vec!["example.com"], "\"example.com\" is neither an address nor a prefix"),
        (
            vec!["192.0.2.0/28"],
            "192.0.2.0/28: bans are of /32, /24 (xdp.limit.prefix_v4, wide_v4); xdp.deny takes any length",
        ),
        (vec!["2001:db8::/60"], "2001:db8::/60: bans are of /64, /56, /48 (xdp.limit.prefix_v6, wide_v6)"),
        (vec!["192.0.2.1", "--for", "8d"], "a ban lasts from a second to a week (7d)"),
        (vec!["192.0.2.1", "--for", "0s"], "a ban lasts from a second to a week (7d)"),
        (vec!["192.0.2.1", "--reason", &long], "a reason has at most 200 octets and no control characters"),
        (vec!["192.0.2.1", "--reason", "a\nb"], "a reason has at most 200 octets and no control characters"),
    ] {
        let said = dotd.operate(&[&["ban", "add"], &words[..]].concat());
        assert!(
            !said.is_success && said.text.starts_with(&format!("dotd: {line}")),
            "{words:?}: {}",
            said.text
        );
    }
    let said = dotd.operate(&["ban", "add", "192.0.2.1", "--for", "ten"]);
    assert!(!said.is_success && said.has("is not a duration"), "{}", said.text);
    dotd.stop();
    let (_network, dotd) = embedded(&Config::new().xdp("off"));
    let said = dotd.operate(&["ban", "add", "192.0.2.1"]);
    assert!(
        !said.is_success && said.has("XDP is off (xdp.mode is \"off\"): nothing would hold a ban"),
        "{}",
        said.text
    );
    dotd.stop();
}

/// Goal: a ban of the engine takes no operator's ban's place: it refuses less, and where limits only count nothing. Method: an
/// operator's ban of a minute; offences for which the engine bans for an hour, before and after it.
#[test]
fn an_operators_ban_stays_an_operators() {
    isolated("an_operators_ban_stays_an_operators", || {
        let listeners = listeners("192.0.2.1:853", 1);
        let mut config = XdpConfig { mode: XdpMode::Generic, ..XdpConfig::default() };
        config.limit.ban_seconds = 3600;
        let group = ListenerGroup {
            address: listeners[0].local_addr().unwrap(),
            sockets: vec![listeners[0].as_fd()],
        };
        let mut xdp = start(&config, &[group]).expect("XDP starts");
        let client = Network::of_host("10.0.0.1".parse().unwrap());
        let offences = Charges::from([(client, Charge::default().with(Cause::Garbage, 1_000_000))]);
        let row = |xdp: &Xdp| {
            let [row] = &xdp.bans()[..] else { panic!("{:?}", xdp.bans()) };
            (row.cause.clone(), row.reason.clone(), row.seconds_left > 60)
        };
        xdp.charge(&offences);
        assert_eq!(row(&xdp), ("garbage".into(), String::new(), true));
        xdp.ban("10.0.0.1", Duration::from_secs(60), "ticket 4711").unwrap();
        assert_eq!(row(&xdp), ("operator".into(), "ticket 4711".into(), false));
        xdp.charge(&offences);
        assert_eq!(row(&xdp), ("operator".into(), "ticket 4711".into(), false));
        xdp.unban("10.0.0.1").unwrap();
        xdp.charge(&offences);
        assert_eq!(row(&xdp), ("garbage".into(), String::new(), true));
        xdp.detach();
    });
}

/// Goal: bans are bounded, and when there is no room the one that ends first gives way, and no other. Method: one ban
/// more than there is room for; the first is the shortest.
#[test]
fn full_map_gives_up_the_ban_nearest_to_its_end() {
    isolated("full_map_gives_up_the_ban_nearest_to_its_end", || {
        let listeners = listeners("192.0.2.1:853", 1);
        let group = ListenerGroup {
            address: listeners[0].local_addr().unwrap(),
            sockets: vec![listeners[0].as_fd()],
        };
        let config = XdpConfig { mode: XdpMode::Generic, ..XdpConfig::default() };
        let mut xdp = start(&config, &[group]).expect("XDP starts");
        let client = |number: u32| IpAddr::from((0x0a00_0000 + number).to_be_bytes()).to_string();
        let hours = |count: u64| Duration::from_secs(3600 * count);
        xdp.ban(&client(0), hours(1), "").unwrap();
        for number in 1..BANS_MAX {
            xdp.ban(&client(number), hours(2), "").unwrap();
        }
        assert_eq!((xdp.report().bans.current, xdp.report().bans.displaced), (BANS_MAX as usize, 0));
        xdp.ban(&client(BANS_MAX), hours(2), "").unwrap();
        let counts = xdp.report().bans;
        assert_eq!((counts.current, counts.displaced), (BANS_MAX as usize, 1));
        assert_eq!(xdp.unban(&client(0)).unwrap_err().to_string(), "10.0.0.0 is not banned");
        for number in [1, BANS_MAX - 1, BANS_MAX] {
            assert_eq!(xdp.unban(&client(number)).unwrap().prefix, format!("{}/32", client(number)));
        }
        xdp.detach();
    });
}
