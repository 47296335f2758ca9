//! The cache as an operator sets it up, and its rarer answers: stale ones, bounds of TTLs, client subnets, forgetting.
//!
//! Before: `harness::scene` with `dns.cache_entries`. After: who asked what of whom is counted on both sides.
//! One worker, so that a cache is one.

use dot_tests::{
    harness::{
        config::Config,
        dot::Dot,
        eventually,
        message::{A, OPTION_EDE, Opt, Query, reply_to},
        netns::SERVER_V4,
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

/// Goal: a stale answer says so to who speaks EDNS also where its server has none, error 3, or 19 where it says that there
/// is no such name (RFC 8914 §4.20); who speaks none sees no OPT. Method: answers of a second without an OPT, then silence;
/// each is asked for with and without EDNS. Covers: C-236
#[test]
fn stale_answers_without_an_opt_have_their_reason() {
    require!(Root);
    let script = |query: &Received| {
        let mut reply = reply_to(&query.octets, A, &[HONEST.to_vec()]);
        let ttl = reply.len() - HONEST.len() - 3;
        reply[ttl] = 1;
        if Message::parse(&query.octets).is_some_and(|query| query.qname().starts_with("absent")) {
            // NXDOMAIN of a zone whose SOA says a second: owner, type, class, TTL, two names and five numbers.
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
