//! Errors are answers (RFC 1035 §4.1.1, RFC 6891 §7): what a client gets from a backend that refuses, and what `status`
//! says.
//!
//! Before: scripted backends, NSD and Unbound that answer with an error. After: the client gets that error at once.

use dot_tests::{
    harness::{
        backends::Backend,
        clients::tool,
        config::Config,
        dot::Dot,
        eventually,
        message::{
            A, FORMERR, OPTION_PADDING, Opt, Query, REFUSED, SERVFAIL, append_opt, bare_error, host, reply_to,
        },
        netns::{Network, SERVER_V4},
        response::Message,
        scene::{HONEST, honest, scripted, scripted_with},
        scripted::{Act, Mood, Received, Scripted},
        server::Server,
    },
    require,
};

const NOTIMP: u16 = 4;
const CLASS_HS: u8 = 4;

/// Goal: an error without a question is an answer at once, over datagrams and connections: the client gets it with its
/// own ID and question, the backend is asked once, and nothing counts as unmatched. Method: each of four rcodes, with
/// and without EDNS in the query, and with an OPT in the error. Covers: C-230
#[test]
fn an_error_without_a_question_is_an_answer() {
    require!(Root);
    for keys in ["", "transport = \"tcp\""] {
        let script = |query: &Received| {
            let asked = Message::parse(&query.octets).expect("whole");
            let rcode = [FORMERR, SERVFAIL, NOTIMP, REFUSED][usize::from(asked.qname().as_bytes()[0] - b'0')];
            let mut reply = bare_error(&query.octets, rcode);
            if asked.qname().starts_with("3opt") {
                append_opt(&mut reply, &Opt::with(15, &[0, 18]));
            }
            vec![Act::Send(reply)]
        };
        let (network, backend, dotd) = scripted_with(Config::new(), keys, script);
        let mut session = Dot::connect(&network.client, SERVER_V4);
        let mut asked = 0;
        for (name, rcode) in
            [("0", FORMERR), ("1", SERVFAIL), ("2", NOTIMP), ("3", REFUSED), ("3opt", REFUSED)]
        {
            let query = Query::new(0x1234 + asked, &format!("{name}.wWw.dotd.test"), A);
            for query in [query.clone(), query.opt(Opt::default())] {
                asked += 1;
                let answer = session.exchange(&query.octets());
                assert_eq!(
                    (answer.id, answer.rcode(), answer.is_response()),
                    (query.id, rcode, true),
                    "{name}"
                );
                assert_eq!(answer.qname(), format!("{name}.wWw.dotd.test"), "{keys}");
                assert_eq!(answer.counts[0], 1);
                if query.opts.is_empty() {
                    assert_eq!(answer.opt_count(), 0, "{name}");
                }
                if name == "3opt" && !query.opts.is_empty() {
                    assert_eq!(answer.option(15), Some(vec![0, 18]));
                }
            }
        }
        assert_eq!(backend.received().len(), usize::from(asked));
        let stats = dotd.counts("all is counted", |stats| stats.difference() == [0; 3]);
        assert_eq!(stats.counter("backend", "unmatched"), 0, "{keys}");
        assert_eq!(stats.counter("backend", "retransmitted"), 0, "{keys}");
    }
}

/// Goal: NOERROR and NXDOMAIN must repeat the question: without it they are dropped, and dotd waits for the true
/// answer. Method: both without a question, then the true answer. Covers: C-54, C-230
#[test]
fn an_answer_without_a_question_is_awaited_out() {
    require!(Root);
    let script = |query: &Received| {
        let lies = [0, 3].map(|rcode| Act::Send(bare_error(&query.octets, rcode)));
        lies.into_iter().chain(honest(query)).collect()
    };
    let (network, _backend, dotd) = scripted(Config::new(), script);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    assert_eq!(session.exchange(&host(1)).rdata(A), [HONEST]);
    assert_eq!(dotd.stats().counter("backend", "unmatched"), 2);
    let backend = &dotd.status()["backends"][0];
    assert_eq!(backend["unmatched"]["count"], 2, "{backend}");
    assert_eq!(backend["unmatched"]["last"], "no question, and no error", "{backend}");
    assert!(dotd.operate(&["status"]).has("unmatched: 2, last: no question, and no error"));
}

/// Goal: a backend that refuses checks is up, over datagrams and connections, and with policy "first" it gets the
/// queries: any answer means that the backend is up. Method: the first backend refuses checks by a header alone; the
/// second would answer. Covers: C-231
#[test]
fn a_backend_that_refuses_checks_is_up() {
    require!(Root);
    for keys in ["", "transport = \"tcp\""] {
        let network = Network::new();
        let backends = [[192, 0, 2, 1], [192, 0, 2, 2]].map(|rdata: [u8; 4]| {
            Scripted::start(&network, move |query: &Received| {
                vec![Act::Send(reply_to(&query.octets, A, &[rdata.to_vec()]))]
            })
        });
        backends[0].be(Mood::Terse);
        let config = Config::new()
            .set("balance", "policy", "\"first\"")
            .set("balance", "health_interval", "\"100ms\"")
            .backend_with(backends[0].address, keys)
            .backend_with(backends[1].address, keys);
        let dotd = Server::start(&network, &config);
        eventually("both are up", || (dotd.backend_states() == ["up", "up"]).then_some(()));
        let mut session = Dot::connect(&network.client, SERVER_V4);
        for id in 0..10 {
            assert_eq!(session.exchange(&host(id)).rdata(A), [[192, 0, 2, 1]], "{keys}");
        }
        assert!(dotd.status()["backends"][0].get("unmatched").is_none());
    }
}

/// Goal: where a backend sent something that is no answer, `status` says so, and does not say that it was silent.
/// Method: a backend that answers checks with another question. Covers: C-232
#[test]
fn status_names_what_came_in_the_place_of_an_answer() {
    require!(Root);
    for keys in ["timeout = \"200ms\"", "timeout = \"200ms\"\ntransport = \"tcp\""] {
        let network = Network::new();
        let backend = Scripted::start(&network, honest);
        backend.be(Mood::Distracted);
        let config =
            Config::new().set("balance", "health_interval", "\"100ms\"").backend_with(backend.address, keys);
        let dotd = Server::start(&network, &config);
        let status = eventually("it is down", || {
            Some(dotd.status()).filter(|status| status["backends"][0]["state"] == "down")
        });
        let reason = status["backends"][0]["reason"].as_str().unwrap_or_default().to_owned();
        assert_eq!(reason, "no answer that fits; unmatched: 1, last: another question");
        assert_eq!(status["backends"][0]["unmatched"]["last"], "another question");
        backend.be(Mood::Willing);
        eventually("it is up again", || (dotd.backend_states() == ["up"]).then_some(()));
        assert!(dotd.status()["backends"][0].get("reason").is_none());
    }
}

/// Goal: FORMERR and NOTIMP of a backend without EDNS pass without an OPT, so that a client learns to ask without one
/// (RFC 6891 §7); other errors get an OPT, as every answer does. Method: a backend that gives such errors to queries
/// with an OPT; then the client asks without one. Covers: C-233
#[test]
fn a_backend_without_edns_says_so() {
    require!(Root);
    for (rcode, opts) in [(FORMERR, 0), (NOTIMP, 0), (REFUSED, 1)] {
        for is_bare in [false, true] {
            let script = move |query: &Received| {
                if Message::parse(&query.octets).expect("whole").opt_count() == 0 {
                    return honest(query);
                }
                let mut error = reply_to(&query.octets, A, &[]);
                error[3] |= u8::try_from(rcode).expect("four bits");
                vec![Act::Send(if is_bare { bare_error(&query.octets, rcode) } else { error })]
            };
            let (network, _backend, _dotd) = scripted(Config::new(), script);
            let mut session = Dot::connect(&network.client, SERVER_V4);
            let query = Query::new(1, "www.dotd.test", A);
            for opt in [Opt::default(), Opt::with(OPTION_PADDING, &[0; 8])] {
                let answer = session.exchange(&query.clone().opt(opt).octets());
                assert_eq!((answer.rcode(), answer.opt_count()), (rcode, opts), "{rcode} {is_bare}");
                assert_eq!(answer.qname(), "www.dotd.test");
            }
            assert_eq!(session.exchange(&query.octets()).rdata(A), [HONEST]);
        }
    }
}

/// Goal: where the backend has no EDNS, a client without EDNS does not notice the OPT that dotd added for its subnet:
/// the query is asked again without it. A client that sent an OPT itself gets FORMERR. Method: `client_subnet = "add"`,
/// over datagrams and connections; each second query of the client has no OPT. Covers: C-233
#[test]
fn an_added_opt_is_taken_back() {
    require!(Root);
    for keys in ["", "transport = \"tcp\""] {
        let script = |query: &Received| match Message::parse(&query.octets).expect("whole").opt_count() {
            0 => honest(query),
            _ => vec![Act::Send(bare_error(&query.octets, FORMERR))],
        };
        let config = Config::new().set("dns", "client_subnet", "\"add\"");
        let (network, backend, dotd) = scripted_with(config, keys, script);
        let mut session = Dot::connect(&network.client, SERVER_V4);
        let query = Query::new(7, "www.dotd.test", A);
        for _ in 0..3 {
            let answer = session.exchange(&query.octets());
            assert_eq!((answer.id, answer.rdata(A), answer.opt_count()), (7, vec![&HONEST[..]], 0), "{keys}");
        }
        let sent: Vec<_> = backend.received().iter().map(|query| query.octets.len()).collect();
        assert_eq!(sent, [query.octets().len() + 11 + 11, query.octets().len()].repeat(3), "{keys}");
        assert_eq!(dotd.stats().counter("backend", "without_edns"), 3);
        let answer = session.exchange(&query.opt(Opt::default()).octets());
        assert_eq!((answer.rcode(), answer.opt_count()), (FORMERR, 0), "{keys}");
        assert_eq!(dotd.stats().difference(), [0; 3]);
    }
}

/// Goal: a backend that changes the case of a name is accepted (RFC 4343), and the client gets the case that the
/// backend wrote: a client that varies case to detect forgeries (0x20) decides itself. Answers from the cache, and
/// shared ones, have the case of each client. Method: a backend that answers in lower case; then the same with a cache.
/// Covers: C-235
#[test]
fn a_question_in_another_case_passes_as_the_backend_wrote_it() {
    require!(Root);
    for (entries, second) in [("0", "www.dotd.test"), ("1000", "WWW.dotd.TEST")] {
        let script = |query: &Received| {
            let mut reply = reply_to(&query.octets, A, &[HONEST.to_vec()]);
            reply[12..26].make_ascii_lowercase();
            vec![Act::Send(reply)]
        };
        let (network, _backend, dotd) = scripted(
            Config::new().set("server", "workers", "1").set("dns", "cache_entries", entries),
            script,
        );
        let mut session = Dot::connect(&network.client, SERVER_V4);
        for (asked, heard) in [("wWw.DotD.test", "www.dotd.test"), ("WWW.dotd.TEST", second)] {
            let answer = session.exchange(&Query::new(1, asked, A).octets());
            assert_eq!((answer.qname().as_str(), answer.rdata(A)), (heard, vec![&HONEST[..]]));
        }
        assert_eq!(dotd.stats().counter("backend", "unmatched"), 0);
    }
}

/// Goal: NSD refuses a class that it does not serve by a header alone, and the client gets that at once. Method: a
/// query of class HS, as a datagram and over a connection. Covers: C-230
#[test]
fn nsd_refuses_a_class() {
    require!(Root, Command("nsd"));
    for keys in ["", "transport = \"tcp\""] {
        let network = Network::new();
        let nsd = Backend::nsd(&network, 5353);
        let dotd = Server::start(&network, &Config::new().backend_with(nsd.address, keys));
        let mut query = Query::new(1, "www.dotd.test", A).octets();
        *query.last_mut().expect("a class") = CLASS_HS;
        let answer = Dot::connect(&network.client, SERVER_V4).exchange(&query);
        assert_eq!((answer.rcode(), answer.qname().as_str()), (REFUSED, "www.dotd.test"), "{keys}");
        assert_eq!(dotd.stats().counter("backend", "unmatched"), 0);
    }
}

/// Goal: an Unbound that refuses dotd is up, and clients get REFUSED at once, not SERVFAIL after two seconds. Method:
/// an access list that refuses every client; dig over UDP too, because its path through dotd differs. Covers: C-230,
/// C-231
#[test]
fn unbound_refuses_and_is_up() {
    require!(Root, Command("unbound"), Command("dig"));
    for keys in ["", "transport = \"tcp\""] {
        let network = Network::new();
        let unbound = Backend::unbound_refusing(&network, 5353);
        let config = Config::new()
            .set("listen", "do53", r#"["0.0.0.0:53"]"#)
            .set("balance", "health_interval", "\"100ms\"")
            .backend_with(unbound.address, keys);
        let dotd = Server::start(&network, &config);
        eventually("it is up", || (dotd.backend_states() == ["up"]).then_some(()));
        let answer = Dot::connect(&network.client, SERVER_V4).exchange(&host(1));
        assert_eq!((answer.rcode(), answer.qname().as_str()), (REFUSED, "host-1.dotd.test"), "{keys}");
        let said = tool(&network.client, "dig", &[&format!("@{SERVER_V4}"), "host-2.dotd.test"]);
        assert!(said.has("status: REFUSED") && said.has("QUERY: 1"), "{}", said.text);
        assert_eq!(dotd.stats().counter("backend", "unmatched"), 0);
    }
}
