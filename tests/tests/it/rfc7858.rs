//! RFC 7858, DNS over TLS: framing, the echoed question, and how long a session stays open.
//!
//! Before: `harness::scene`. After: what a DoT client may rely on, octet by octet.

use dot_tests::{
    harness::{
        capture::{Capture, Frame},
        clients::{DOT_PORT, getdns, is_nothing_but_an_alert, read_to_close, tcp},
        config::Config,
        dot::{Dot, End},
        message::{A, AAAA, Query, framed},
        netns::{Network, SERVER_V4, SERVER_V6},
        offer::Offer,
        scene::{HONEST, embedded, honest, scripted},
        scratch::Scratch,
        server::Server,
    },
    require,
};
use std::{io::Write, net::SocketAddr};

/// Goal: DoT is served on 853 over both families (RFC 7858 §3.1). Method: the tests' own client asks the embedded zone
/// at each address. Covers: C-1
#[test]
fn serves_both_families() {
    require!(Root);
    let (network, _dotd) = embedded(&Config::new());
    for address in [SERVER_V4, SERVER_V6] {
        let answer = Dot::connect(&network.client, address).exchange(&Query::new(1, "dotd.test", A).octets());
        assert_eq!(answer.rdata(A), [[192, 0, 2, 53]]);
    }
}

/// Goal: TLS on port 53 is refused at start, in one line that says why (RFC 7858 §3.1).
/// Method: a config that asks for it. Covers: C-2
#[test]
fn refuses_tls_on_port_53() {
    require!(Root);
    let network = Network::new();
    let config = Config::new().set("listen", "dot", r#"["127.0.0.1:53"]"#);
    let ended = Server::attempt(&network, &config, Scratch::new(), &[]).expect_err("it must not start");
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.lines().count() == 1 && ended.stderr.contains("53"), "{ended:?}");
}

/// Goal: a response and its length prefix are in one TLS record and one TCP segment (RFC 7858 §3.3, RFC 7766 §8).
/// Method: the tests' own client counts the plaintext octets of each record; a capture shows that the last record, type
/// and length in its header, is a segment's whole payload. Covers: C-12
#[test]
fn a_response_is_one_record_in_one_segment() {
    require!(Root);
    let (network, _dotd) = embedded(&Config::new());
    let capture = Capture::start(&network.client);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    // A ticket is sent with the first response; the second one stands alone.
    let _ = session.exchange(&Query::new(1, "dotd.test", A).octets());
    let answer = session.exchange(&Query::new(2, "dotd.test", A).octets());
    assert_eq!(session.records(), [answer.octets + 2; 2]);
    let frames = capture.frames_of(DOT_PORT);
    let is_data = |frame: &&Frame| frame.source_port == DOT_PORT && !frame.payload.is_empty();
    let payload = &frames.iter().rev().find(is_data).expect("the response was seen").payload;
    assert_eq!(payload[..3], [0x17, 3, 3], "a record begins the segment");
    assert_eq!(usize::from(u16::from_be_bytes([payload[3], payload[4]])) + 5, payload.len());
}

/// Goal: responses that are written together have a record each: getdns 1.6 reads one message for each record that arrives, and left a
/// second one in it unread until its query had timed out. Method: the records of 64 queries that come at once; getdns_query asks for
/// A and AAAA at once, and has both. Covers: C-662
#[test]
fn each_response_has_a_record_of_its_own() {
    require!(Root, Command("getdns_query"));
    let (network, _dotd) = embedded(&Config::new());
    let mut session = Dot::connect(&network.client, SERVER_V4);
    let queries: Vec<_> = (0..64).map(|id| Query::new(id, "www.dotd.test", A).octets()).collect();
    session.ask_all(&queries);
    let octets: Vec<_> = queries.iter().map(|_| session.receive().octets + 2).collect();
    assert_eq!(session.records(), octets);
    for _ in 0..20 {
        let said = getdns(&network.client, SERVER_V4, &["-A", "www.dotd.test"]);
        // Of the whole, and of each of the two replies.
        let replies = said.text.matches("\"answer_type\"").count();
        assert!(said.has("GETDNS_RESPSTATUS_GOOD") && replies == 3, "{}", said.text);
    }
}

/// Goal: every ID and question come back as sent, case kept (RFC 7858 §3.3). Method: IDs at the edges and in between,
/// names in mixed case, two types. Covers: C-19
#[test]
fn echoes_id_and_question_with_its_case() {
    require!(Root);
    let (network, _backend, _dotd) = scripted(Config::new(), honest);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    for id in [0, 1, 0x00ff, 0xff00, 0x8000, u16::MAX] {
        for (qname, qtype) in [("dOtD.tEsT", A), ("WWW.dotd.TEST", AAAA), ("x", A)] {
            let asked = Query::new(id, qname, qtype);
            let answer = session.exchange(&asked.octets());
            assert_eq!((answer.id, answer.qname().as_str()), (id, qname));
            assert_eq!(answer.question, asked.octets()[12..]);
            assert!(answer.is_response());
        }
    }
}

/// Goal: the session stays open after a response (RFC 7858 §3.4).
/// Method: a hundred exchanges, one after the other, on one session. Covers: C-21
#[test]
fn a_session_lives_on_after_a_response() {
    require!(Root);
    let (network, _backend, dotd) = scripted(Config::new(), honest);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    for id in 0..100 {
        assert_eq!(session.exchange(&Query::new(id, "www.dotd.test", A).octets()).rdata(A), [HONEST]);
    }
    assert_eq!(dotd.stats().counter("connections", "accepted"), 1);
}

/// Goal: an idle session ends with close_notify and FIN, and is counted as idle (RFC 8446 §6.1).
/// Method: one exchange, then silence under a short idle timeout. Covers: A-5, C-24, C-28
#[test]
fn an_idle_session_ends_with_close_notify() {
    require!(Root);
    let (network, dotd) = embedded(&Config::new().set("session", "idle_timeout", "\"2s\""));
    let mut session = Dot::connect(&network.client, SERVER_V4);
    let _ = session.exchange(&Query::new(3, "dotd.test", A).octets());
    assert_eq!(session.end(), End::CloseNotify);
    dotd.counts("the idle end is counted", |stats| stats.counter("session_ends", "idle") == 1);
}

/// Goal: after a failed handshake the same socket gets no DNS either (RFC 7858 §3.1).
/// Method: XDP off; garbage, then a cleartext query on the same socket; only alerts may come. Covers: C-4
#[test]
fn a_failed_handshake_gets_no_dns() {
    require!(Root);
    let (network, dotd) = embedded(&Config::new().xdp("off"));
    let mut stream = tcp(&network.client, SocketAddr::new(SERVER_V4, DOT_PORT));
    let hello_and_query =
        [&[0x16, 3, 1, 0, 4, 1, 0, 0, 0], &*framed(&Query::new(4, "dotd.test", A).octets())].concat();
    stream.write_all(&hello_and_query).expect("open");
    let octets = read_to_close(&mut stream);
    assert!(is_nothing_but_an_alert(&octets), "{octets:02x?}");
    dotd.counts("the failure is counted", |stats| stats.sum("handshakes", "failed_") == 1);
}

/// Goal: without SNI, with any SNI, with or without ALPN `dot` a client is served; ALPN without `dot` is refused with
/// no_application_protocol (RFC 7301 §3.2). Method: five combinations in both TLS versions. Covers: C-65, C-66, A-55
#[test]
fn alpn_and_sni() {
    require!(Root);
    let (network, dotd) = embedded(&Config::new());
    let dot: &[u8] = b"dot";
    for is_tls12 in [false, true] {
        for (alpn, server_name) in [
            (vec![dot], None),
            (vec![dot], Some("any.example")),
            (vec![], None),
            (vec![b"h2".as_slice(), dot], Some("dotd.test")),
        ] {
            let expected = (!alpn.is_empty()).then(|| dot.to_vec());
            let alpn = alpn.into_iter().map(<[u8]>::to_vec).collect();
            let offer = Offer { alpn, server_name, is_tls12, ..Offer::default() };
            let mut session = Dot::attempt(&network.client, SERVER_V4, &offer).expect("served");
            assert_eq!(session.alpn(), expected, "{offer:?}");
            let _ = session.exchange(&Query::new(5, "dotd.test", A).octets());
        }
        let offer = Offer { alpn: vec![b"h2".to_vec()], is_tls12, ..Offer::default() };
        let end = Dot::attempt(&network.client, SERVER_V4, &offer).expect_err("refused");
        assert!(matches!(&end, End::Broken(why) if why.contains("NoApplicationProtocol")), "{end:?}");
    }
    dotd.counts("both refusals are counted", |stats| stats.counter("handshakes", "failed_alpn") == 2);
}
