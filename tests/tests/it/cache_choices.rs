//! The cache with an operator's settings, and its rarer answers: stale ones, TTL bounds, client subnets, removal.
//!
//! Before: `harness::scene` with `dns.cache_entries`. After: queries were counted on both sides. There is one worker,
//! so that there is one cache.

use nix::sys::signal::Signal;

use dot_tests::{
    harness::{
        config::Config,
        dot::Dot,
        eventually,
        message::{A, OPTION_EDE, Opt, Query, SERVFAIL, TXT, append_opt, reply_to},
        netns::{SERVER_V4, SERVER_V6},
        response::Message,
        scene::{HONEST, scripted_with},
        scripted::{Act, Mood, Received},
    },
    require,
};

const NXDOMAIN: u16 = 3;

fn cached() -> Config {
    Config::new().set("server", "workers", "1").set("dns", "cache_entries", "10000")
}

/// Goal: a stale answer carries error 3, or 19 for NXDOMAIN (RFC 8914 §4.20), for clients with EDNS, also where the
/// server has no EDNS; a client without EDNS gets no OPT. Method: answers with a TTL of a second and without an OPT,
/// then silence; each is asked for with and without EDNS. Covers: C-236
#[test]
fn stale_answers_without_an_opt_have_their_reason() {
    require!(Root);
    let script = |query: &Received| {
        let mut reply = reply_to(&query.octets, A, &[HONEST.to_vec()]);
        let ttl = reply.len() - HONEST.len() - 3;
        reply[ttl] = 1;
        if Message::parse(&query.octets).is_some_and(|query| query.qname().starts_with("absent")) {
            // NXDOMAIN of a zone whose SOA has a minimum of a second: owner, type, class, TTL, two names and five
            // numbers.
            reply.truncate(reply.len() - 16);
            reply[3] |= 3;
            reply[7] = 0;
            reply[9] = 1;
            reply.extend([0xc0, 12, 0, 6, 0, 1, 0, 0, 0, 1, 0, 22, 0, 0]);
            reply.extend([0; 19].into_iter().chain([1]));
        }
        vec![Act::Send(reply)]
    };
    let (network, backend, _dotd) = scripted_with(cached(), "timeout = \"200ms\"", script);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    for (name, rcode, info_code) in [("www.dotd.test", 0, 3), ("absent.dotd.test", NXDOMAIN, 19)] {
        backend.be(Mood::Willing);
        let query = Query::new(1, name, A);
        let queries = [query.clone(), query.opt(Opt::default())];
        for query in &queries {
            let answer = session.exchange(&query.octets());
            assert_eq!((answer.rcode(), answer.option(OPTION_EDE)), (rcode, None), "{name}");
        }
        backend.be(Mood::Deaf);
        for query in &queries {
            let answer = eventually("what has ended is given", || {
                let answer = session.exchange(&query.octets());
                answer.records.iter().any(|record| record.rtype != 41 && record.ttl == 30).then_some(answer)
            });
            assert_eq!((answer.rcode(), answer.opt_count()), (rcode, query.opts.len()), "{name}");
            let reason = answer.option(OPTION_EDE).map(|value| u16::from(value[1]));
            assert_eq!(reason, (!query.opts.is_empty()).then_some(info_code), "{name}");
        }
    }
}

/// The name chooses the TTL: "ttl-N.…" has an A record with TTL N; "none-N.…" is NXDOMAIN with an SOA that says N.
fn by_name(query: &Received) -> Vec<Act> {
    let asked = Message::parse(&query.octets).expect("whole");
    let name = asked.qname();
    let (kind, seconds) = name.split('.').next().and_then(|label| label.split_once('-')).expect("kind-N");
    let seconds: [u8; 4] = seconds.parse::<u32>().expect("a number").to_be_bytes();
    let mut reply = reply_to(&query.octets, A, &[HONEST.to_vec()]);
    let record = reply.len() - 16;
    reply[record + 6..record + 10].copy_from_slice(&seconds);
    if kind == "none" {
        reply.truncate(record);
        reply[3] |= 3;
        reply[7] = 0;
        reply[9] = 1;
        reply.extend([0xc0, 12, 0, 6, 0, 1]);
        reply.extend(seconds);
        reply.extend([0, 22, 0, 0].into_iter().chain([0; 16]).chain(seconds));
    }
    vec![Act::Send(reply)]
}

/// Goal: an operator's bounds hold: an answer with TTL zero is kept for the minimum, a long one is asked for again
/// after the maximum, negative answers likewise, and with `cache_stale = "0s"` no expired answer is given. A reload
/// changes the bounds. Method: names that state their TTL, asked until the backend gets them again. Covers: C-239
#[test]
fn an_operators_bounds_hold() {
    require!(Root);
    let config = cached().set("dns", "cache_ttl_min", "\"1h\"").set("dns", "cache_ttl_max", "\"2h\"").set(
        "dns",
        "cache_stale",
        "\"0s\"",
    );
    let (network, backend, mut dotd) = scripted_with(config, "timeout = \"200ms\"", by_name);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    let mut ask = |name: &str| session.exchange(&Query::new(1, name, A).octets());
    for name in ["ttl-0.test", "none-0.test", "ttl-0.test", "none-0.test"] {
        let rcode = if name.starts_with("none") { NXDOMAIN } else { 0 };
        assert_eq!(ask(name).rcode(), rcode);
    }
    assert_eq!(backend.received().len(), 2, "what says zero is kept for an hour");
    let config = cached()
        .set("dns", "cache_ttl_max", "\"1s\"")
        .set("dns", "cache_negative_ttl_max", "\"1s\"")
        .set("dns", "cache_stale", "\"0s\"")
        .backend_with(backend.address, "timeout = \"200ms\"");
    dotd.rewrite_config(&config);
    dotd.signal(Signal::SIGHUP);
    eventually("the reload", || dotd.stderr().contains("reloaded").then_some(()));
    for name in ["ttl-5000.test", "none-5000.test"] {
        let before = backend.received().len();
        eventually("it is asked for again", || {
            let _ = ask(name);
            (backend.received().len() == before + 2).then_some(())
        });
    }
    backend.be(Mood::Deaf);
    eventually("nothing is stale", || (ask("ttl-5000.test").rcode() == SERVFAIL).then_some(()));
}

/// Goal: with `client_subnet = "add"` the cache keeps an answer with scope 0 once for all clients, and one for a subnet
/// only for that subnet; clients do not see the added option. Method: two clients of two networks ask; the backend
/// states scope 0 for one name, and 24 for the other. Covers: C-238
#[test]
fn added_subnets_share_what_is_for_all() {
    require!(Root);
    let script = |query: &Received| {
        let asked = Message::parse(&query.octets).expect("whole");
        let mut reply = reply_to(&query.octets, A, &[HONEST.to_vec()]);
        let mut subnet = asked.option(8).expect("dotd adds one");
        subnet[3] = if asked.qname().starts_with("all") { 0 } else { subnet[2] };
        append_opt(&mut reply, &Opt::with(8, &subnet));
        vec![Act::Send(reply)]
    };
    let config = cached().set("dns", "client_subnet", "\"add\"");
    let (network, backend, dotd) = scripted_with(config, "", script);
    let mut clients = [SERVER_V4, SERVER_V6].map(|server| Dot::connect(&network.client, server));
    for name in ["all.dotd.test", "some.dotd.test"] {
        for _ in 0..3 {
            for client in &mut clients {
                let query = Query::new(1, name, A);
                for (query, opts) in [(query.clone(), 0), (query.opt(Opt::default()), 1)] {
                    let answer = client.exchange(&query.octets());
                    assert_eq!((answer.rdata(A), answer.opt_count()), (vec![&HONEST[..]], opts));
                    assert_eq!(answer.option(8), None);
                }
            }
        }
        let of_name =
            |query: &&Received| Message::parse(&query.octets).is_some_and(|asked| asked.qname() == name);
        // Both address families, each with and without an OPT of the client.
        assert_eq!(backend.received().iter().filter(of_name).count(), 4, "{name}");
    }
    dotd.counts("all is counted", |stats| stats.difference() == [0; 3]);
}

/// Goal: clients that state their subnet share an answer for all subnets, in which each sees its own subnet, and do not
/// share an answer for one subnet. Method: two /24 of one family, and a third that asks for no subnet. Covers: C-238
#[test]
fn said_subnets_share_what_is_for_all() {
    require!(Root);
    let script = |query: &Received| {
        let asked = Message::parse(&query.octets).expect("whole");
        let mut reply = reply_to(&query.octets, A, &[HONEST.to_vec()]);
        let mut subnet = asked.option(8).expect("the client says one");
        subnet[3] = if asked.qname().starts_with("all") { 0 } else { subnet[2] };
        append_opt(&mut reply, &Opt::with(8, &subnet));
        vec![Act::Send(reply)]
    };
    let (network, backend, _dotd) = scripted_with(cached(), "", script);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    let subnets = [&[0, 1, 24, 0, 192, 0, 2][..], &[0, 1, 24, 0, 198, 51, 100], &[0, 1, 0, 0]];
    for (name, scope, heard) in [("all.dotd.test", 0, 2), ("some.dotd.test", 24, 3)] {
        let before = backend.received().len();
        for subnet in subnets.repeat(2) {
            let answer = session.exchange(&Query::new(1, name, A).opt(Opt::with(8, subnet)).octets());
            let mut expected = subnet.to_vec();
            expected[3] = if subnet[2] == 0 { 0 } else { scope };
            assert_eq!(answer.option(8), Some(expected), "{name}");
        }
        assert_eq!(backend.received().len() - before, heard, "{name}");
    }
}

/// Goal: an operator removes answers by suffix and by type, and others stay. Method: names in two zones, of two types;
/// after each flush the test counts which are asked for again. Covers: C-240
#[test]
fn answers_are_forgotten_by_suffix_and_type() {
    require!(Root);
    let (network, backend, dotd) = scripted_with(cached(), "", |query| {
        let qtype = Message::parse(&query.octets).map_or(A, |asked| {
            u16::from_be_bytes(asked.question[asked.question.len() - 4..][..2].try_into().expect("two"))
        });
        vec![Act::Send(reply_to(&query.octets, qtype, &[HONEST.to_vec()]))]
    });
    let mut session = Dot::connect(&network.client, SERVER_V4);
    let names = ["dotd.test", "a.dotd.test", "b.a.dotd.test", "xdotd.test"];
    let mut asked_again = || {
        let before = backend.received().len();
        let kept = names.iter().flat_map(|name| [A, TXT].map(|qtype| Query::new(1, name, qtype).octets()));
        kept.for_each(|query| drop(session.exchange(&query)));
        backend.received().len() - before
    };
    assert_eq!((asked_again(), asked_again()), (8, 0));
    for (words, forgotten) in [
        (&["cache", "flush", "a.dotd.test"][..], 2),
        (&["cache", "flush", "--suffix", "A.dotd.test."], 4),
        (&["cache", "flush", "--suffix", "dotd.test", "--type", "TXT"], 3),
        (&["cache", "flush", "--type", "A"], 4),
        (&["cache", "flush"], 8),
    ] {
        assert!(dotd.operate(words).is_success, "{words:?}");
        let mut total = 0;
        eventually("they are forgotten", || {
            total += asked_again();
            (total == forgotten).then_some(())
        });
        assert_eq!(asked_again(), 0, "{words:?}");
    }
    let said = dotd.operate(&["cache", "flush", "--suffix", "dotd.test", "--type", "TXT"]);
    assert!(
        said.has("1 worker removed the answers for dotd.test and all below it, type TXT"),
        "{}",
        said.text
    );
    for words in [&["cache", "flush", "--type", "nothing"][..], &["cache", "flush", "--suffix"]] {
        assert!(!dotd.operate(words).is_success, "{words:?}");
    }
}
