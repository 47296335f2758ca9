//! `[policy]`: rules that change answers for names and addresses, over every transport, compared with Unbound and
//! BIND and the same zone.
//!
//! Before: a response policy zone or a list in a file. After: clients get the answers that its rules give, and
//! operators see which rule decided.

use std::{collections::BTreeMap, fmt::Write as _, net::SocketAddr};

use dot_tests::{
    harness::{
        backends::Backend,
        clients::udp,
        config::Config,
        dot::Dot,
        eventually,
        message::{A, OPTION_EDE, Opt, Query, TXT},
        netns::{Network, SERVER_V4},
        response::Message,
        scratch::Scratch,
        server::Server,
        uninterrupted,
    },
    require,
};
use nix::sys::signal::Signal;

const CNAME: u16 = 5;
const SOA: u16 = 6;
const RRSIG: u16 = 46;
/// The EDNS flag of clients that ask for signatures.
const DO: u16 = 0x8000;
const NXDOMAIN: u16 = 3;
const HEAD: &str = "$TTL 60\n@ SOA localhost. root.localhost. 7 3600 600 86400 60\n@ NS localhost.\n";

/// dotd in front of NSD, with the policy zone `rpz.lab` in the file `zone`, and more keys for it.
fn with_zone(zone: &str, more: &str, records: &str) -> (Network, Backend, Server) {
    let network = Network::new();
    let backend = Backend::nsd_with(&network, 5300, records);
    let scratch = Scratch::new();
    scratch.write("zone", zone);
    let dotd = Server::launch(&network, &config(more), scratch, &[]);
    (network, backend, dotd)
}

fn config(more: &str) -> Config {
    let zone = format!("[{{ name = \"rpz.lab\", file = \"zone\"{more} }}]");
    Config::new()
        .xdp("off")
        .set("listen", "do53", "[\"0.0.0.0:53\"]")
        .backend(SocketAddr::from(([127, 0, 0, 1], 5300)))
        .set("dns", "cache_entries", "1000")
        .set("policy", "zone", &zone)
}

fn query(id: u16, name: &str, qtype: u16) -> Vec<u8> {
    Query::new(id, name, qtype).opt(Opt::default()).octets()
}

/// The answer that a client gets over UDP.
fn over_udp(network: &Network, port: u16, message: &[u8]) -> Message {
    let socket = udp(&network.client, SocketAddr::new(SERVER_V4, port));
    socket.send(message).expect("sent");
    let mut octets = [0; 4096];
    let length = uninterrupted(|| socket.recv(&mut octets)).expect("an answer");
    Message::parse(&octets[..length]).expect("whole")
}

/// The content of an answer: its rcode, the number of aliases (Unbound leaves some out where they lead to nothing), and
/// the data of the other records, sorted.
type Said = (u16, usize, Vec<(u16, Vec<u8>)>);

fn said(answer: &Message) -> Said {
    let answers = &answer.records[..usize::from(answer.counts[1])];
    let aliases = answers.iter().filter(|record| record.rtype == CNAME).count();
    let mut data: Vec<_> = answers
        .iter()
        .filter(|record| record.rtype != CNAME)
        .map(|record| (record.rtype, record.rdata.clone()))
        .collect();
    data.sort();
    (answer.rcode(), aliases, data)
}

/// The address records of the answer section.
fn addresses(answer: &Message) -> Vec<Vec<u8>> {
    said(answer).2.into_iter().filter(|(rtype, _)| *rtype == A).map(|(_, rdata)| rdata).collect()
}

/// Goal: each action works over TLS, UDP and TCP-only as the draft says, with the extended error, the zone's name and
/// its SOA; names without a rule are answered as usual. Method: a rule of each kind. Covers: C-441, C-442, C-443, C-451
#[test]
fn rules_hold_over_every_transport() {
    require!(Root, Command("nsd"));
    let zone = format!(
        "{HEAD}nx.dotd.test CNAME .\nnodata.dotd.test CNAME *.\n*.below.dotd.test CNAME .\npass.below.dotd.test CNAME rpz-passthru.\n\
         tcp.dotd.test CNAME rpz-tcp-only.\ndrop.dotd.test CNAME rpz-drop.\nlocal.dotd.test A 192.0.2.7\nlocal.dotd.test TXT \"blocked\"\n"
    );
    let records =
        "nx A 192.0.2.1\nnodata A 192.0.2.1\ntcp A 192.0.2.2\npass.below A 192.0.2.3\ndrop A 192.0.2.4\n";
    let (network, _backend, dotd) = with_zone(&zone, "", records);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    for (name, qtype, rcode, data) in [
        ("NX.dotd.test", A, NXDOMAIN, vec![]),
        ("nodata.dotd.test", A, 0, vec![]),
        ("x.y.below.dotd.test", TXT, NXDOMAIN, vec![]),
        ("local.dotd.test", A, 0, vec![vec![192, 0, 2, 7]]),
        ("local.dotd.test", TXT, 0, vec![b"\x07blocked".to_vec()]),
        ("local.dotd.test", 28, 0, vec![]),
    ] {
        let message = query(1, name, qtype);
        for answer in [session.exchange(&message), over_udp(&network, 53, &message)] {
            assert_eq!(
                (answer.rcode(), answer.rdata(qtype)),
                (rcode, data.iter().map(Vec::as_slice).collect()),
                "{name}"
            );
            assert_eq!(
                answer.option(OPTION_EDE).expect("an extended error"),
                [&[0, 15][..], b"rpz.lab"].concat()
            );
            assert_eq!((answer.rdata(SOA).len(), answer.counts[2], answer.qname()), (1, 0, name.to_owned()));
        }
    }
    let plain = session.exchange(&Query::new(2, "nx.dotd.test", A).octets());
    assert_eq!((plain.rcode(), plain.opt_count()), (NXDOMAIN, 0), "no OPT where the client has none");
    for (name, last) in [("tcp.dotd.test", 2), ("pass.below.dotd.test", 3)] {
        assert_eq!(addresses(&session.exchange(&query(3, name, A))), [[192, 0, 2, last]], "{name}");
    }
    let cut = over_udp(&network, 53, &query(4, "tcp.dotd.test", A));
    assert!(cut.is_truncated() && cut.counts[1] == 0, "{cut:?}");
    session.ask_all(&[query(5, "drop.dotd.test", A), query(6, "www.dotd.test", A)]);
    assert_eq!(session.receive().id, 6, "the dropped query was answered");
    let stats = dotd.counts("every end is in the books", |stats| stats.difference() == [0; 3]);
    for (label, count) in
        [("nxdomain", 5), ("nodata", 2), ("local_data", 6), ("tcp_only", 2), ("passthru", 1), ("dropped", 1)]
    {
        assert_eq!(stats.counter("policy", label), count, "{label}");
    }
    assert_eq!((stats.counter("queries", "dropped_policy"), stats.counter("policy", "by_name")), (1, 17));
}

/// Goal: an alias in a rule leads a client to its target, in one answer, at the first query and from the cache; a
/// backend's answer is cut where an alias leads to a blocked name, or at a blocked address. Covers: C-444, C-446,
/// C-449, A-446, A-447
#[test]
fn aliases_and_addresses_are_followed() {
    require!(Root, Command("nsd"));
    let zone = format!(
        "{HEAD}bad.dotd.test CNAME garden.dotd.test.\nwide.dotd.test CNAME *.garden.dotd.test.\ntracker.dotd.test CNAME .\n\
         moved.dotd.test CNAME garden.dotd.test.\n32.66.2.0.192.rpz-ip CNAME .\n32.67.2.0.192.rpz-ip A 192.0.2.100\n\
         32.68.2.0.192.rpz-ip CNAME garden.dotd.test.\n32.69.2.0.192.rpz-ip CNAME rpz-drop.\n32.70.2.0.192.rpz-ip CNAME rpz-tcp-only.\n"
    );
    let records = "garden A 192.0.2.9\nwide.dotd.test.garden A 192.0.2.10\ncloak CNAME tracker\ntracker A 192.0.2.1\n\
                   cloak2 CNAME moved\nmoved A 192.0.2.1\nip66 A 192.0.2.66\nip66c CNAME ip66\nip67 A 192.0.2.67\nip68 A 192.0.2.68\n\
                   ip69 A 192.0.2.69\nip70 A 192.0.2.70\n";
    let (network, _backend, dotd) = with_zone(&zone, "", records);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    let expected = |rcode, aliases, last: Option<u8>| -> Said {
        (rcode, aliases, last.map(|last| (A, vec![192, 0, 2, last])).into_iter().collect())
    };
    for (name, what) in [
        ("bad", expected(0, 1, Some(9))),
        ("wide", expected(0, 1, Some(10))),
        ("cloak", expected(NXDOMAIN, 1, None)),
        ("cloak2", expected(0, 2, Some(9))),
        ("ip66", expected(NXDOMAIN, 0, None)),
        ("ip66c", expected(NXDOMAIN, 1, None)),
        ("ip67", expected(0, 0, Some(100))),
        ("ip68", expected(0, 1, Some(9))),
    ] {
        // The second time the backend's answer comes from the cache.
        for round in 0..2 {
            let message = query(round, &format!("{name}.dotd.test"), A);
            for answer in [session.exchange(&message), over_udp(&network, 53, &message)] {
                assert_eq!(said(&answer), what, "{name}, round {round}");
                assert!(
                    answer.option(OPTION_EDE).is_some_and(|octets| octets.ends_with(b"rpz.lab")),
                    "{name}"
                );
            }
        }
    }
    session.ask_all(&[query(5, "ip69.dotd.test", A), query(6, "www.dotd.test", A)]);
    assert_eq!(session.receive().id, 6, "an answer with a dropped address came");
    assert_eq!(addresses(&session.exchange(&query(7, "ip70.dotd.test", A))), [[192, 0, 2, 70]]);
    assert!(over_udp(&network, 53, &query(8, "ip70.dotd.test", A)).is_truncated());
    assert_eq!(session.exchange(&query(9, "bad.dotd.test", CNAME)).rdata(CNAME).len(), 1);
    let stats = dotd.counts("every end is in the books", |stats| stats.difference() == [0; 3]);
    assert_eq!((stats.counter("policy", "by_alias"), stats.counter("responses", "dropped_policy")), (8, 1));
    assert_eq!(stats.counter("policy", "asked_again"), 8);
}

/// Goal: 5,000 names get the same rcode and data from dotd with the zone as from Unbound with the same zone. Method:
/// NSD behind both; rules of each kind, names with a rule and names without; each pair of answers is compared. Covers:
/// C-452
#[test]
fn answers_are_unbounds() {
    require!(Root, Command("nsd"), Command("unbound"));
    compare(Backend::unbound_with_policy);
}

/// Goal: the same beside BIND. Covers: C-800
#[test]
fn answers_are_binds() {
    require!(Root, Command("nsd"), Command("named"));
    compare(Backend::bind_with_policy);
}

/// Compares dotd's answers with those of a resolver that has the same zone, which this starts on a port, with an upstream.
fn compare(start: fn(&Network, u16, SocketAddr, &str) -> Backend) {
    let (zone, records, names) = field();
    let (network, backend, _dotd) = with_zone(&zone, "", &records);
    let _other = start(&network, 5301, backend.address, &zone);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    let socket = udp(&network.client, SocketAddr::new(SERVER_V4, 5301));
    let (mut seen, mut differing) = (BTreeMap::new(), Vec::new());
    for names in names.chunks(50) {
        let messages: Vec<_> = (0..).zip(names).map(|(id, (name, qtype))| query(id, name, *qtype)).collect();
        session.ask_all(&messages);
        let mut ours: Vec<_> = messages.iter().map(|_| session.receive()).collect();
        ours.sort_by_key(|answer| answer.id);
        for ((answer, message), (name, qtype)) in ours.iter().zip(&messages).zip(names) {
            socket.send(message).expect("sent");
            let mut octets = [0; 4096];
            let length = uninterrupted(|| socket.recv(&mut octets)).expect("an answer of the other one");
            let theirs = Message::parse(&octets[..length]).expect("whole");
            let known =
                |(rcode, aliases, data): Said| (rcode, if data.is_empty() { 0 } else { aliases }, data);
            let (ours, theirs) = (known(said(answer)), known(said(&theirs)));
            if ours != theirs {
                differing.push(format!("{name} {qtype}: {ours:?} here, {theirs:?} there"));
            }
            *seen.entry((answer.rcode(), answer.counts[1])).or_insert(0) += 1;
        }
    }
    assert!(differing.is_empty(), "{}: {:#?}", differing.len(), &differing[..differing.len().min(20)]);
    assert!(names.len() >= 5000 && seen.len() >= 5, "{seen:?}");
}

/// A zone, the backend's records, and the questions.
fn field() -> (String, String, Vec<(String, u16)>) {
    let (mut zone, mut records, mut names) = (HEAD.to_owned(), String::new(), Vec::new());
    zone += "16.0.0.168.192.rpz-ip CNAME .\n24.0.7.168.192.rpz-ip CNAME rpz-passthru.\n32.9.9.168.192.rpz-ip A 192.0.2.99\n\
             24.0.8.168.192.rpz-ip CNAME *.\n24.0.6.168.192.rpz-ip CNAME garden.dotd.test.\n";
    records += "garden A 192.0.2.9\n*.wide A 192.0.2.10\n";
    for number in 0..1000 {
        let name = format!("f{number}.dotd.test");
        let (kind, octet) = (number % 10, number % 200);
        let _ = match kind {
            0 => writeln!(zone, "{name} CNAME ."),
            1 => writeln!(zone, "{name} CNAME *."),
            2 => writeln!(zone, "{name} CNAME .\n*.{name} CNAME *."),
            3 => writeln!(zone, "*.{name} CNAME .\nok.{name} CNAME rpz-passthru."),
            4 => writeln!(
                zone,
                "{name} A 192.0.2.{octet}\n{name} A 198.51.100.{octet}\n{name} TXT \"n {number}\""
            ),
            5 => writeln!(zone, "{name} CNAME garden.dotd.test."),
            6 => writeln!(zone, "{name} CNAME *.wide.dotd.test."),
            7 => writeln!(zone, "{name} CNAME rpz-passthru."),
            _ => writeln!(zone, "; nothing about {name}"),
        };
        // The backend's data: an address, an address with a rule, or an alias of another name of the set.
        let third = number / 10 % 10;
        let _ = match number / 100 % 3 {
            0 => writeln!(records, "f{number} A 198.51.100.{octet}\nok.f{number} A 198.51.100.1"),
            1 => writeln!(records, "f{number} A 192.168.{third}.{}", octet % 10),
            _ => writeln!(records, "f{number} CNAME f{}", (number + 133) % 200),
        };
        let _ = writeln!(records, "f{number}-t TXT \"x\"");
        names.push((name.clone(), A));
        // Unbound 1.17 applies no rule to an alias that is in its cache, so each alias is asked for once.
        let other =
            if number / 100 % 3 == 2 { format!("f{number}-u.dotd.test") } else { name.to_uppercase() };
        names.push((other, TXT));
        names.push((format!("ok.{name}"), A));
        names.push((format!("a.b.{name}"), A));
        names.push((format!("f{number}-t.dotd.test"), TXT));
    }
    (zone, records, names)
}

/// Goal: a newer file takes effect without a signal while a session goes on, also for kept answers; a file with a
/// mistake does not: the old zone stays, and `status` names file and line; a reload with a mistake changes nothing;
/// hits are counted for each zone.
#[test]
fn a_newer_file_takes_effect() {
    require!(Root, Command("nsd"));
    let nothing = format!("{HEAD}other.dotd.test CNAME .\n");
    let (network, _backend, mut dotd) = with_zone(&nothing, "", "");
    let mut session = Dot::connect(&network.client, SERVER_V4);
    let hears = |session: &mut Dot| session.exchange(&query(1, "host-7.dotd.test", A)).rcode();
    assert_eq!((hears(&mut session), hears(&mut session)), (0, 0));
    dotd.counts("the answer is a kept one", |stats| stats.counter("cache", "hits") == 1);
    let rules = |dotd: &Server| dotd.status()["policy"][0].clone();
    assert_eq!((rules(&dotd)["serial"].as_u64(), rules(&dotd)["rules"].as_u64()), (Some(7), Some(1)));
    dotd.write("zone", HEAD.replace(" 7 ", " 8 ") + "host-7.dotd.test CNAME .\nx.dotd.test CNAME .\n");
    eventually("the newer zone", || (rules(&dotd)["serial"] == 8).then_some(()));
    assert_eq!((hears(&mut session), rules(&dotd)["rules"].as_u64()), (NXDOMAIN, Some(2)));
    assert_eq!(rules(&dotd)["hits"], 1);
    dotd.write("zone", format!("{HEAD}host-7.dotd.test CNAME rpz-nonsense.\n"));
    let error = eventually("the error", || rules(&dotd)["error"].as_str().map(str::to_owned));
    assert!(error.contains("zone:4: rpz-nonsense is not a known action"), "{error}");
    assert_eq!((hears(&mut session), rules(&dotd)["serial"].as_u64()), (NXDOMAIN, Some(8)));
    dotd.signal(Signal::SIGHUP);
    dotd.counts("the reload fails", |stats| stats.counter("control", "reloads_failed") == 1);
    assert_eq!(hears(&mut session), NXDOMAIN);
    dotd.write("zone", &nothing);
    eventually("the first zone", || {
        (rules(&dotd)["serial"] == 7 && rules(&dotd)["error"].is_null()).then_some(())
    });
    assert_eq!(
        (hears(&mut session), rules(&dotd)["hits"].as_u64()),
        (0, Some(3)),
        "hits of a zone stay its own"
    );
    let gone = config("").set("policy", "zone", "[]");
    dotd.rewrite_config(&gone);
    dotd.signal(Signal::SIGHUP);
    dotd.counts("the reload", |stats| stats.counter("control", "reloads_ok") == 1);
    assert!(dotd.status()["policy"].is_null());
}

/// Goal: a zone whose file changed just before a reload that fails for another reason is read nevertheless; if the zone
/// has the mistake, `status` reports it also after the reload. Method: both files are written, then a reload follows at
/// once, as from a script that fetches a list.
#[test]
fn a_failed_reload_leaves_no_zone_behind() {
    require!(Root, Command("nsd"));
    let (_network, _backend, dotd) = with_zone(&format!("{HEAD}x.dotd.test CNAME .\n"), "", "");
    let zone = || dotd.status()["policy"][0].clone();
    dotd.write("zone", HEAD.replace(" 7 ", " 8 ") + "x.dotd.test CNAME .\n");
    dotd.rewrite_config(&config("").set("dns", "cache_entries", "\"many\""));
    assert!(!dotd.operate(&["reload"]).is_success);
    eventually("the newer zone", || (zone()["serial"] == 8).then_some(()));
    dotd.rewrite_config(&config(""));
    dotd.write("zone", format!("{HEAD}x.dotd.test CNAME rpz-nonsense.\n"));
    assert!(!dotd.operate(&["reload"]).is_success);
    let error = eventually("the error", || zone()["error"].as_str().map(str::to_owned));
    assert!(error.contains("zone:4: rpz-nonsense is not a known action"), "{error}");
}

/// Goal: while a reload reads a large zone, operators are answered. Method: a list of 150,000 names, a reload, and
/// `status` repeatedly until the reload is over.
#[test]
fn a_large_zone_keeps_no_operator_waiting() {
    require!(Root, Command("nsd"));
    let (_network, _backend, dotd) = with_zone("ads.dotd.test\n", ", format = \"domains\"", "");
    let names = (0..150_000).map(|number| format!("n{number}.list.dotd.test\n")).collect::<String>();
    dotd.write("zone", names);
    let mut answers = 0;
    std::thread::scope(|scope| {
        let reload = scope.spawn(|| dotd.operate(&["reload"]));
        while !reload.is_finished() {
            answers += u32::from(dotd.status()["policy"][0]["rules"] == 2);
        }
        assert!(reload.join().expect("no panic").is_success);
    });
    assert_eq!(dotd.status()["policy"][0]["rules"], 300_000);
    assert!(answers > 5, "{answers} answers while the list was read");
}

/// Goal: dotd does not start with a zone that has a mistake, and `check` reports the same line; a zone that only counts
/// changes no answer; `policy` lists zones, and `policy test` names the rule that decides, with its line. Covers:
/// A-444, C-445
#[test]
fn an_operator_sees_which_rule_decides() {
    require!(Root, Command("nsd"));
    let list = "# list\nads.dotd.test\nhost-1.dotd.test\n";
    let more = ", format = \"domains\", mode = \"count\"";
    let (network, _backend, dotd) = with_zone(list, more, "");
    let mut session = Dot::connect(&network.client, SERVER_V4);
    assert_eq!(session.exchange(&query(1, "host-1.dotd.test", A)).rcode(), 0);
    let stats = dotd.counts("it is counted", |stats| stats.counter("policy", "only_counted") == 1);
    assert_eq!(
        (stats.counter("policy", "nxdomain"), dotd.status()["policy"][0]["hits"].as_u64()),
        (0, Some(1))
    );
    let shown = dotd.operate(&["policy"]);
    assert!(
        shown.is_success
            && shown.has("rpz.lab: 4 rules, only counted")
            && shown.has("(domains)")
            && shown.has("1 hits; read"),
        "{}",
        shown.text
    );
    for client in [&["--client", "192.0.2.1"][..], &["192.0.2.1"]] {
        let tested = dotd.operate(&[&["policy", "test", "x.ads.dotd.test", "AAAA"], client].concat());
        assert!(
            tested.has("AAAA of 192.0.2.1: no rule about the question")
                && tested.has("only counted: nxdomain"),
            "{}",
            tested.text
        );
    }
    dotd.rewrite_config(&config(", format = \"domains\""));
    assert!(dotd.operate(&["reload"]).is_success);
    let tested = dotd.operate(&["policy", "test", "x.ads.dotd.test"]);
    assert!(tested.has("x.ads.dotd.test A: nxdomain") && tested.has("zone:2, by name"), "{}", tested.text);
    assert!(dotd.operate(&["policy", "test", "a..b"]).has("not a domain name"));
    dotd.write("zone", "<html>\n");
    let failed = dotd.operate(&["reload"]);
    assert!(
        !failed.is_success && failed.has("zone:1: ") && failed.has("<html> is not a name"),
        "{}",
        failed.text
    );
    let scratch = Scratch::new();
    scratch.write("zone", "<html>\n");
    let ended = Server::attempt(
        &network,
        &config(", format = \"domains\"").set("listen", "do53", "[]"),
        scratch,
        &[],
    );
    assert!(ended.is_err_and(|ended| format!("{ended:?}").contains("zone:1: ")), "it started with that list");
}

/// Goal: a client that asks for signatures gets a signed answer unchanged where the zone says so, and the rule's answer otherwise;
/// a client that does not ask gets the rule's answer. Method: NSD with a signed zone; both values of `break_dnssec`; DO=1 and
/// DO=0, for a name and for an address in the answer, the second time from the cache. Covers: A-448, C-450
#[test]
fn signed_answers_are_for_clients_that_ask_for_them() {
    require!(Root, Command("nsd"), Command("dnssec-signzone"), Command("dnssec-keygen"));
    let network = Network::new();
    let records = "bad A 192.0.2.1\nfar A 192.0.2.66\n";
    let (_backend, _key) = Backend::nsd_signed_with(&network, 5300, records);
    let scratch = Scratch::new();
    scratch.write("zone", format!("{HEAD}bad.dotd.test CNAME .\n32.66.2.0.192.rpz-ip CNAME .\n"));
    let mut dotd = Server::launch(&network, &config(", break_dnssec = false"), scratch, &[]);
    for (reload, is_kept) in [(0, true), (1, false)] {
        dotd.counts("the reload", |stats| stats.counter("control", "reloads_ok") == reload);
        let mut session = Dot::connect(&network.client, SERVER_V4);
        for (name, round) in ["bad", "far"].into_iter().flat_map(|name| [(name, 0), (name, 1)]) {
            let opt = |dnssec_ok| Opt { flags: if dnssec_ok { DO } else { 0 }, ..Opt::default() };
            let mut ask = |dnssec_ok| {
                let query = Query::new(1, &format!("{name}.dotd.test"), A).opt(opt(dnssec_ok));
                session.exchange(&query.octets())
            };
            let signed = ask(true);
            let kept = (signed.rcode(), !signed.rdata(RRSIG).is_empty());
            assert_eq!(kept, if is_kept { (0, true) } else { (NXDOMAIN, false) }, "{name}, round {round}");
            assert_eq!(ask(false).rcode(), NXDOMAIN, "{name}, round {round}");
        }
        dotd.rewrite_config(&config(""));
        dotd.signal(Signal::SIGHUP);
    }
}
