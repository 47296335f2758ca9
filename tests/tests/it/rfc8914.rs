//! RFC 8914, extended DNS errors: dotd's own failures give the reason to clients with EDNS.
//!
//! Before: `harness::scene`. After: never silence, never an internal address.

use dot_tests::{
    harness::{
        config::Config,
        dot::Dot,
        eventually,
        message::{A, OPTION_EDE, Opt, Query, SERVFAIL, SOA, append_opt, reply_to},
        netns::{Network, SERVER_V4},
        response::Message,
        scene::{HONEST, scripted, scripted_with},
        scripted::{Act, Received},
        server::Server,
    },
    require,
};

const NO_REACHABLE_AUTHORITY: u16 = 22;
const NETWORK_ERROR: u16 = 23;

fn with_opt(id: u16) -> Vec<u8> {
    Query::new(id, "www.dotd.test", A).opt(Opt::default()).octets()
}

/// SERVFAIL with one EDE about the backend, whose text is short, UTF-8 and names no address.
fn assert_backend_failure(answer: &Message) {
    assert_eq!((answer.rcode(), answer.opt_count()), (SERVFAIL, 1), "{answer:?}");
    let value = answer.option(OPTION_EDE).expect("an EDE");
    let code = u16::from_be_bytes([value[0], value[1]]);
    assert!([NO_REACHABLE_AUTHORITY, NETWORK_ERROR].contains(&code), "EDE {code}");
    let text = std::str::from_utf8(&value[2..]).expect("UTF-8");
    assert!(text.len() <= 64 && !text.contains("127.") && !text.contains(':'), "{text}");
}

/// Goal: a silent backend is SERVFAIL with EDE 22 or 23, never silence; without OPT in the query no OPT (RFC 5625 §6.3,
/// RFC 8914). Method: a script that never answers. Covers: C-52, C-57, C-58, C-41, A-59
#[test]
fn a_silent_backend_is_servfail() {
    require!(Root);
    let (network, backend, dotd) = scripted_with(Config::new(), "timeout = \"200ms\"", |_| Vec::new());
    let mut session = Dot::connect(&network.client, SERVER_V4);
    assert_backend_failure(&session.exchange(&with_opt(1)));
    let plain = session.exchange(&Query::new(2, "www.dotd.test", A).octets());
    assert_eq!((plain.id, plain.rcode(), plain.opt_count()), (2, SERVFAIL, 0));
    eventually("it was asked both", || (backend.received().len() >= 2).then_some(()));
    let stats = dotd.counts("both time-outs", |stats| stats.counter("backend", "timeout") >= 2);
    assert_eq!(stats.counter("responses", "SERVFAIL"), 2);
    assert_eq!(stats.counter("backend_outstanding", "outstanding"), 0);
}

/// Goal: an absent backend leads to SERVFAIL with EDE, and is counted. Method: a loopback port where nothing listens,
/// which the kernel reports at once. Covers: C-52, C-57, A-58
#[test]
fn an_absent_backend_is_servfail() {
    require!(Root);
    let network = Network::new();
    let config = Config::new().backend_with(([127, 0, 0, 1], 9).into(), "timeout = \"500ms\"");
    let dotd = Server::start(&network, &config);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    assert_backend_failure(&session.exchange(&with_opt(1)));
    let stats = dotd.stats();
    assert!(stats.counter("backend", "unreachable") + stats.counter("backend", "timeout") >= 1, "{stats:?}");
}

/// Goal: a late response is dropped as unmatched, without further effect. Method: the backend's reply is released after
/// the client had its SERVFAIL.
#[test]
fn a_late_response_is_dropped() {
    require!(Root);
    let script = |query: &Received| vec![Act::Hold(reply_to(&query.octets, A, &[HONEST.to_vec()]))];
    let (network, backend, dotd) = scripted_with(Config::new(), "timeout = \"200ms\"", script);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    assert_eq!(session.exchange(&with_opt(1)).rcode(), SERVFAIL);
    eventually("its response is ready", || (backend.held() >= 1).then_some(()));
    backend.release();
    dotd.counts("the late one is counted", |stats| stats.counter("backend", "unmatched") >= 1);
    assert!(session.is_quiet());
}

/// Goal: requests that policy refuses give the reason to clients with EDNS: NOTIFY and UPDATE (EDE 18); they do not
/// reach the backend, and the session lives on. Method: both opcodes with a zone, with and without OPT. Covers: C-57,
///
#[test]
fn what_policy_refuses_has_its_reason() {
    require!(Root);
    const REFUSED: u16 = 5;
    const PROHIBITED: [u8; 2] = [0, 18];
    let (network, backend, _dotd) = scripted(Config::new(), |_| Vec::new());
    let mut session = Dot::connect(&network.client, SERVER_V4);
    for opcode in [4, 5] {
        let query = Query::new(opcode, "dotd.test", SOA).flags(opcode << 11);
        let answer = session.exchange(&query.clone().opt(Opt::default()).octets());
        assert_eq!((answer.id, answer.rcode(), answer.opt_count()), (opcode, REFUSED, 1));
        assert_eq!(
            answer.option(OPTION_EDE).and_then(|value| value.first_chunk().copied()),
            Some(PROHIBITED)
        );
        let plain = session.exchange(&query.octets());
        assert_eq!((plain.rcode(), plain.opt_count(), plain.flags >> 11 & 15), (REFUSED, 0, opcode));
    }
    assert_eq!(backend.received().len(), 0);
}

/// Goal: a client with EDNS that sends an invalid query gets the reason: FORMERR and BADVERS carry an extended error,
/// with a text that repeats nothing from the query; NOTIMP is the header alone (RFC 8906 §8.1.4). Method: each mistake
/// with an OPT record, and without one where that is possible. Covers: C-57, C-58, C-41
#[test]
fn what_cannot_be_read_has_its_reason() {
    require!(Root);
    let (network, backend, _dotd) = scripted(Config::new(), |_| Vec::new());
    let mut session = Dot::connect(&network.client, SERVER_V4);
    let query = || Query::new(1, "secret.dotd.test", A);
    let mut two_opts = query().opt(Opt::default()).octets();
    append_opt(&mut two_opts, &Opt::default());
    let mut past_its_record = query().opt(Opt::with(OPTION_EDE, &[0; 4])).octets();
    let length = past_its_record.len() - 5;
    past_its_record[length] = 200;
    let mut no_question = vec![0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    append_opt(&mut no_question, &Opt::default());
    let later = query().opt(Opt { version: 1, ..Opt::default() }).octets();
    for (what, octets, rcode, code) in [
        ("two OPT records", &two_opts, 1, 0),
        ("an option past its record", &past_its_record, 1, 0),
        ("no question", &no_question, 1, 0),
        ("a later version", &later, 16, 21),
    ] {
        let answer = session.exchange(octets);
        assert_eq!((answer.rcode(), answer.opt_count()), (rcode, 1), "{what}: {answer:?}");
        let value = answer.option(OPTION_EDE).unwrap_or_else(|| panic!("{what}: no EDE"));
        assert_eq!(value[..2], [0, code], "{what}");
        let text = std::str::from_utf8(&value[2..]).expect("UTF-8");
        assert!((1..=64).contains(&text.len()) && !text.contains("secret"), "{what}: {text}");
    }
    let plain = session.exchange(&no_question[..11].iter().copied().chain([0]).collect::<Vec<_>>());
    assert_eq!((plain.rcode(), plain.opt_count()), (1, 0));
    let unknown = session.exchange(&query().flags(15 << 11).opt(Opt::default()).octets());
    assert_eq!((unknown.rcode(), unknown.counts), (4, [0; 4]));
    assert_eq!(backend.received().len(), 0);
}

/// Goal: a backend's own EDE passes (RFC 8914 §5).
/// Method: code 6 with a text in the backend's OPT. Covers: C-58
#[test]
fn a_backends_own_error_passes() {
    require!(Root);
    let script = |query: &Received| {
        let mut reply = reply_to(&query.octets, A, &[]);
        reply[3] = 0x82;
        append_opt(&mut reply, &Opt::with(OPTION_EDE, b"\0\x06bogus"));
        vec![Act::Send(reply)]
    };
    let (network, _backend, _dotd) = scripted(Config::new(), script);
    let answer = Dot::connect(&network.client, SERVER_V4).exchange(&with_opt(1));
    assert_eq!((answer.rcode(), answer.option(OPTION_EDE)), (SERVFAIL, Some(b"\0\x06bogus".to_vec())));
}
