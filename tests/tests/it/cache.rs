//! The cache and the sharing of answers, RFC 2308, RFC 8767: what a client sees, and which queries the backend does not
//! get.
//!
//! Before: `harness::scene` with `dns.cache_entries`. After: queries were counted on both sides. There is one worker,
//! so that there is one cache.

use std::{cell::RefCell, path::PathBuf};

use dot_tests::{
    harness::{
        backends::{Backend, dnsperf_queries},
        clients::{dnsperf, kdig},
        config::Config,
        dot::Dot,
        eventually,
        message::{A, OPTION_EDE, OPTION_PADDING, Opt, Query, SERVFAIL, TXT, append_opt, reply_to},
        netns::{Network, SERVER_V4},
        response::Message,
        scene::{HONEST, honest, scripted, scripted_with},
        scratch::Scratch,
        scripted::{Act, Mood, Received},
        server::Server,
    },
    require,
};

const NXDOMAIN: u16 = 3;

fn cached() -> Config {
    Config::new().set("server", "workers", "1").set("dns", "cache_entries", "10000")
}

/// One A record with this TTL, and OPT to OPT.
fn lasting(seconds: u8) -> impl Fn(&Received) -> Vec<Act> {
    move |query| {
        let mut reply = reply_to(&query.octets, A, &[HONEST.to_vec()]);
        let ttl = reply.len() - HONEST.len() - 3;
        reply[ttl] = seconds;
        if Message::parse(&query.octets).is_some_and(|query| query.opt_count() > 0) {
            append_opt(&mut reply, &Opt::default());
        }
        vec![Act::Send(reply)]
    }
}

fn ttl(answer: &Message) -> u32 {
    answer.records.iter().find(|record| record.rtype == A).expect("an A record").ttl
}

/// Goal: a second query is answered without the backend, with a TTL that has counted down, its own ID and case, and
/// padding if it asked for that. Method: ask until a second has passed; the backend got one query. Covers: C-19, C-36
#[test]
fn an_answer_is_kept_and_counts_down() {
    require!(Root);
    let (network, backend, dotd) = scripted(cached(), honest);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    let padded = || Opt::with(OPTION_PADDING, &[0; 3]);
    assert_eq!(ttl(&session.exchange(&Query::new(1, "www.dotd.test", A).opt(padded()).octets())), 60);
    let answer = eventually("the TTL is less", || {
        let answer = session.exchange(&Query::new(0x4321, "wWw.DOTD.test", A).opt(padded()).octets());
        (ttl(&answer) < 60).then_some(answer)
    });
    assert_eq!((answer.id, answer.qname().as_str()), (0x4321, "wWw.DOTD.test"));
    assert_eq!((answer.rdata(A), answer.octets), (vec![&HONEST[..]], 468));
    assert_eq!(backend.received().len(), 1);
    let stats = dotd.counts("all is counted", |stats| stats.difference() == [0; 3]);
    assert_eq!((stats.counter("cache", "misses"), stats.counter("cache_entries", "entries")), (1, 1));
    assert!(stats.counter("cache", "hits") >= 1 && stats.counter("cache_octets", "octets") > 100);
    assert_eq!(stats.counter("cache", "hits"), stats.counter("queries", "cached"));
}

/// Goal: queries that differ in type, RD, CD, AD, DO or the presence of OPT have separate answers; queries with cookies
/// or unknown options, whose answers are for one client alone, are neither answered from the cache nor kept. Client
/// subnets share the answer of a server that states no scope. Method: each query twice; the backend gets those with a
/// key once, the others twice. Covers: C-44, C-238
#[test]
fn answers_are_kept_apart() {
    require!(Root);
    let (network, backend, dotd) = scripted(cached(), honest);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    let base = || Query::new(1, "www.dotd.test", A);
    let subnet = |last| Opt::with(8, &[0, 1, 24, 0, 192, 0, last]);
    let kept = [
        base(),
        base().flags(0),
        base().flags(0x0110),
        base().flags(0x0120),
        base().opt(Opt::default()),
        base().opt(Opt { flags: 0x8000, ..Opt::default() }),
        base().opt(subnet(2)),
        base().opt(subnet(3)),
        Query::new(1, "wwx.dotd.test", A),
    ];
    let passing = [
        base().opt(Opt::with(10, &[1, 2, 3, 4, 5, 6, 7, 8])),
        base().opt(Opt::with(3, &[])),
        base().opt(Opt::with(65_001, b"?")),
        base().opt(Opt { flags: 0x4000, ..Opt::default() }),
        Query::new(1, "www.dotd.test", 255),
    ];
    for query in kept.iter().chain(&passing) {
        for _ in 0..2 {
            assert_eq!(session.exchange(&query.octets()).rdata(A), [HONEST]);
        }
    }
    assert_eq!(backend.received().len(), kept.len() - 1 + 2 * passing.len(), "both subnets are one");
    assert_eq!(dotd.stats().counter("cache", "bypassed"), 2 * passing.len() as u64);
}

/// Goal: a cookie that a backend gave one client reaches no other one.
/// Method: the backend puts a cookie into every answer, asked or not; the second client's answer is its own.
#[test]
fn a_cookie_is_for_one_client() {
    require!(Root);
    let (network, backend, _dotd) = scripted(cached(), |query| {
        let mut reply = reply_to(&query.octets, A, &[HONEST.to_vec()]);
        append_opt(&mut reply, &Opt::with(10, &[7; 16]));
        vec![Act::Send(reply)]
    });
    let mut session = Dot::connect(&network.client, SERVER_V4);
    for _ in 0..2 {
        let _ = session.exchange(&Query::new(1, "www.dotd.test", A).opt(Opt::default()).octets());
    }
    assert_eq!(backend.received().len(), 2);
}

/// Goal: equal queries at the same time cause one query to the backend, and each client's answer has its own ID, case
/// and padding. Method: a hundred queries while the backend holds its answer; then the answer is released. Covers:
/// C-19, C-20
#[test]
fn equal_queries_are_asked_once() {
    require!(Root);
    let (network, backend, dotd) = scripted(cached(), |query| match honest(query).pop() {
        Some(Act::Send(reply)) => vec![Act::Hold(reply)],
        _ => Vec::new(),
    });
    let mut sessions = [(); 2].map(|()| Dot::connect(&network.client, SERVER_V4));
    let name = |id: u16| if id.is_multiple_of(2) { "www.dotd.test" } else { "WWW.dotd.TEST" };
    for (session, start) in sessions.iter_mut().zip([0, 50]) {
        let query = |id| Query::new(id, name(id), A).opt(Opt::with(OPTION_PADDING, &[])).octets();
        session.ask_all(&(start..start + 50).map(query).collect::<Vec<_>>());
    }
    dotd.counts("ninety-nine wait", |stats| stats.counter("cache_waiting", "waiting") == 99);
    assert_eq!(backend.received().len(), 1);
    backend.release();
    for (session, start) in sessions.iter_mut().zip([0, 50]) {
        let mut ids: Vec<u16> = Vec::new();
        for _ in 0..50 {
            let answer = session.receive();
            assert_eq!((answer.qname().as_str(), answer.octets), (name(answer.id), 468));
            assert_eq!(answer.rdata(A), [HONEST]);
            ids.push(answer.id);
        }
        ids.sort_unstable();
        assert_eq!(ids, (start..start + 50).collect::<Vec<_>>());
    }
    assert_eq!(backend.received().len(), 1);
    dotd.counts("all is counted", |stats| {
        stats.difference() == [0; 3] && stats.counter("cache_waiting", "waiting") == 0
    });
}

/// Goal: while equal queries wait, an answer with broken records counts for none of them; dotd waits for the true one.
/// Method: the backend answers with a record that runs past the message, then correctly; the client that asked first
/// has left. Covers: C-54, A-61
#[test]
fn broken_records_are_awaited_out_by_all() {
    require!(Root);
    let (network, backend, dotd) = scripted(cached(), |query| {
        let good = reply_to(&query.octets, A, &[HONEST.to_vec()]);
        let broken = good[..good.len() - 2].to_vec();
        vec![Act::Hold(broken), Act::Hold(good)]
    });
    let mut first = Dot::connect(&network.client, SERVER_V4);
    first.ask(&Query::new(9, "www.dotd.test", A).octets());
    dotd.counts("it is at the backend", |stats| stats.counter("backend_outstanding", "outstanding") == 1);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    session.ask_all(&(0..3).map(|id| Query::new(id, "www.dotd.test", A).octets()).collect::<Vec<_>>());
    dotd.counts("three wait", |stats| stats.counter("cache_waiting", "waiting") == 3);
    first.abort();
    dotd.counts("it has left", |stats| stats.counter("connections_open", "open") == 1);
    backend.release();
    for _ in 0..3 {
        assert_eq!(session.receive().rdata(A), [HONEST]);
    }
    let stats = dotd.counts("the broken one is no match", |stats| stats.counter("backend", "unmatched") == 1);
    assert_eq!((stats.difference(), stats.counter("cache_waiting", "waiting")), ([0; 3], 0));
}

/// Goal: while the backend is gone, expired answers are given for 30 s, with a TTL of 30 and, for clients with EDNS,
/// error 3 (RFC 8767 §4, RFC 8914 §4.4); a name that is not in the cache is SERVFAIL; and dotd notices the return of
/// the backend. Method: a TTL of one second; the backend stops answering, then answers again. Covers: A-58, C-236
#[test]
fn what_has_ended_is_given_while_no_backend_answers() {
    require!(Root);
    let (network, backend, dotd) = scripted_with(cached(), "timeout = \"1s\"", lasting(1));
    let mut session = Dot::connect(&network.client, SERVER_V4);
    let with = Query::new(1, "www.dotd.test", A).opt(Opt::default()).octets();
    let without = Query::new(2, "www.dotd.test", A).octets();
    assert_eq!(ttl(&session.exchange(&with)), 1);
    assert_eq!(ttl(&session.exchange(&without)), 1);
    backend.be(Mood::Deaf);
    let stale = eventually("the answer is stale", || {
        let answer = session.exchange(&with);
        (ttl(&answer) == 30).then_some(answer)
    });
    assert_eq!(stale.option(OPTION_EDE).expect("an extended error")[..2], [0, 3]);
    let stale = eventually("the other one too", || {
        let answer = session.exchange(&without);
        (ttl(&answer) == 30).then_some(answer)
    });
    assert_eq!((stale.opt_count(), stale.rcode(), stale.rdata(A)), (0, 0, vec![&HONEST[..]]));
    assert_eq!(session.exchange(&Query::new(3, "absent.dotd.test", A).octets()).rcode(), SERVFAIL);
    backend.be(Mood::Willing);
    eventually("the backend is asked again", || (ttl(&session.exchange(&with)) == 1).then_some(()));
    let stats = dotd.counts("all is counted", |stats| stats.difference() == [0; 3]);
    assert!(stats.counter("cache", "stale") >= 2);
}

/// Goal: a SERVFAIL does not replace an answer that expired a moment ago (RFC 8767 §4).
#[test]
fn what_has_ended_is_better_than_servfail() {
    require!(Root);
    let is_ill = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let illness = std::sync::Arc::clone(&is_ill);
    let (network, _backend, _dotd) = scripted(cached(), move |query| {
        let mut acts = lasting(1)(query);
        if let (Some(Act::Send(reply)), true) =
            (acts.first_mut(), illness.load(std::sync::atomic::Ordering::Relaxed))
        {
            reply.truncate(query.octets.len());
            (reply[3], reply[7]) = (0x82, 0);
        }
        acts
    });
    let mut session = Dot::connect(&network.client, SERVER_V4);
    let query = Query::new(1, "www.dotd.test", A).octets();
    assert_eq!(ttl(&session.exchange(&query)), 1);
    is_ill.store(true, std::sync::atomic::Ordering::Relaxed);
    let answer = eventually("the answer is stale", || {
        let answer = session.exchange(&query);
        (ttl(&answer) == 30).then_some(answer)
    });
    assert_eq!((answer.rcode(), answer.rdata(A)), (0, vec![&HONEST[..]]));
}

/// Goal: a popular answer is renewed before it expires, by one query of the cache itself, and no client waits for it.
/// Method: ask repeatedly for an answer with a TTL of three seconds; the backend holds its second answer, and clients
/// still get answers. The ledger's equations hold with a query that has no client.
#[test]
fn a_popular_answer_is_refreshed_before_it_ends() {
    require!(Root);
    let asked = std::sync::Mutex::new(0);
    let (network, backend, dotd) = scripted(cached(), move |query| {
        let mut asked = asked.lock().expect("no panic here");
        *asked += 1;
        match (lasting(3)(query).pop(), *asked) {
            (Some(Act::Send(reply)), 2) => vec![Act::Hold(reply)],
            (act, _) => act.into_iter().collect(),
        }
    });
    let mut session = Dot::connect(&network.client, SERVER_V4);
    let query = Query::new(1, "www.dotd.test", A).octets();
    let session = RefCell::new(&mut session);
    eventually("a refresh is under way", || {
        let answer = session.borrow_mut().exchange(&query);
        assert_eq!(answer.rdata(A), [HONEST]);
        (backend.held() == 1).then_some(())
    });
    assert_eq!(backend.received().len(), 2);
    assert_eq!(dotd.stats().counter("cache", "refreshes"), 1);
    backend.release();
    dotd.counts("its outcome is counted", |stats| {
        stats.counter("cache", "refreshed") == 1 && stats.difference() == [0; 3]
    });
}

/// Goal: with NSD as backend, negative answers are kept for as long as the SOA says (RFC 2308), kdig sees a TTL count
/// down, and a long answer is complete. Method: ask twice; count what NSD was asked.
#[test]
fn negative_and_long_answers_of_a_real_server_are_kept() {
    require!(Root, Command("nsd"), Command("kdig"));
    let network = Network::new();
    let backend = Backend::nsd(&network, 5353);
    let dotd = Server::start(&network, &cached().backend(backend.address));
    let mut session = Dot::connect(&network.client, SERVER_V4);
    for (name, qtype, rcode) in
        [("absent.dotd.test", A, NXDOMAIN), ("txt.dotd.test", A, 0), ("big.dotd.test", TXT, 0)]
    {
        let query = Query::new(1, name, qtype).octets();
        let (first, second) = (session.exchange(&query), session.exchange(&query));
        assert_eq!((first.rcode(), second.rcode()), (rcode, rcode), "{name}");
        assert_eq!((first.counts, first.octets), (second.counts, second.octets), "{name}");
    }
    let stats = dotd.stats();
    assert_eq!((stats.counter("queries", "forwarded"), stats.counter("cache", "hits")), (3, 3));
    eventually("kdig sees the TTL count down", || {
        let said = kdig(&network.client, SERVER_V4, "+tls www.dotd.test A");
        assert!(said.has("192.0.2.80"), "{}", said.text);
        (!said.has("300\tIN\tA")).then_some(())
    });
    assert_eq!(dotd.stats().counter("queries", "forwarded"), 4);
}

/// Goal: an operator removes the answers of one name, in any case, and then all; other names stay. Method: two names in
/// the cache; `dotd cache flush` of one, of an invalid name, and of all. Covers: C-240
#[test]
fn an_operator_has_answers_forgotten() {
    require!(Root);
    let (network, backend, dotd) = scripted(cached(), honest);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    let mut ask = |name: &str| drop(session.exchange(&Query::new(1, name, A).octets()));
    ask("one.dotd.test");
    ask("two.dotd.test");
    let said = dotd.operate(&["cache", "flush", "ONE.dotd.test."]);
    assert_eq!(said.text, "1 worker removed the answers for ONE.dotd.test.\n", "{said:?}");
    eventually("one is asked anew", || {
        ask("one.dotd.test");
        (backend.received().len() == 3).then_some(())
    });
    ask("two.dotd.test");
    assert_eq!(backend.received().len(), 3, "two is kept");
    let said = dotd.operate(&["cache", "flush", "no..name"]);
    assert!(said.text.contains("not a domain name"), "{said:?}");
    let said = dotd.operate(&["cache", "flush"]);
    assert!(said.text.contains("every name"), "{said:?}");
    eventually("two is asked anew", || {
        ask("two.dotd.test");
        (backend.received().len() == 4).then_some(())
    });
}

/// Goal: without a cache the verb says so. Method: dotd as it is by default.
#[test]
fn nothing_is_forgotten_where_nothing_is_kept() {
    require!(Root);
    let (_network, _backend, dotd) = scripted(Config::new(), honest);
    let said = dotd.operate(&["cache", "flush"]);
    assert!(said.text.contains("dns.cache_entries is 0"), "{said:?}");
}

/// Goal: kept answers belong to the backends that gave them: a reload that changes how backends are asked empties the
/// cache, and one that changes a limit keeps it. Method: HUP with another timeout, then with another transport.
#[test]
fn a_reload_with_other_backends_forgets() {
    require!(Root);
    let (network, backend, mut dotd) = scripted(cached(), honest);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    let query = Query::new(1, "www.dotd.test", A).octets();
    let reload = |dotd: &mut Server, config: &Config, count: u64| {
        dotd.rewrite_config(config);
        dotd.signal(nix::sys::signal::Signal::SIGHUP);
        dotd.counts("it is reloaded", |stats| stats.0["control"]["reloads_ok"].as_u64() == Some(count));
    };
    let _ = session.exchange(&query);
    reload(&mut dotd, &cached().backend_with(backend.address, "timeout = \"1900ms\""), 1);
    let _ = session.exchange(&query);
    assert_eq!(backend.received().len(), 1);
    reload(&mut dotd, &cached().backend_with(backend.address, "transport = \"tcp\""), 2);
    dotd.counts("nothing is kept", |stats| stats.counter("cache_entries", "entries") == 0);
    let _ = session.exchange(&query);
    assert_eq!(backend.received().len(), 2);
}

/// Goal: under load with more names than fit, no query is lost, the bound holds and every query is counted. Method:
/// dnsperf over ten connections, a thousand names, a cache of a hundred.
#[test]
fn a_small_cache_under_load_loses_nothing() {
    require!(Root, Command("nsd"), Command("dnsperf"));
    let network = Network::new();
    let backend = Backend::nsd(&network, 5353);
    let config = cached().set("dns", "cache_entries", "100").backend(backend.address);
    let dotd = Server::start(&network, &config);
    let scratch = Scratch::new();
    let queries: PathBuf = scratch.write("queries", dnsperf_queries(2000));
    let said = dnsperf(&network.client, SERVER_V4, &queries, "-n 3 -c 10 -q 200");
    assert_eq!((said.number_after("Queries lost:"), said.number_after("Queries completed:")), (0, 6000));
    let stats = dotd.counts("all is counted", |stats| stats.difference() == [0; 3]);
    assert!(stats.counter("cache_entries", "entries") <= 100);
    assert!(stats.counter("cache", "evictions") > 1000);
}
