//! RFC 7830 and RFC 8467, padding: blocks of 468 octets, for clients that pad.
//!
//! Before: `harness::scene`. After: an eavesdropper learns little from lengths.

use dot_tests::{
    harness::{
        config::Config,
        dot::Dot,
        message::{A, OPTION_PADDING, Opt, Query, TXT, append_opt, reply_to},
        netns::SERVER_V4,
        response::Message,
        scene::{HONEST, honest, scripted, scripted_with},
        scripted::{Act, Received},
    },
    require,
};

const AXFR: u16 = 252;

fn padded(id: u16, qtype: u16, fill: &[u8]) -> Vec<u8> {
    Query::new(id, "www.dotd.test", qtype).opt(Opt::with(OPTION_PADDING, fill)).octets()
}

fn assert_padded(answer: &Message) {
    assert_eq!(answer.octets % 468, 0, "{} octets", answer.octets);
    let options = answer.options();
    let (last, value) = options.last().expect("an option");
    assert_eq!(*last, OPTION_PADDING, "padding is the last option");
    assert!(value.iter().all(|octet| *octet == 0), "padding is zero");
    assert_eq!(options.iter().filter(|(code, _)| *code == OPTION_PADDING).count(), 1);
}

/// Goal: a padded query gets a response of a multiple of 468 octets, zero-filled, the option last and alone
/// (RFC 8467 §4.1). Method: answers of many sizes, around the block's edge too. Covers: C-36, C-40
#[test]
fn responses_to_padded_queries_are_whole_blocks() {
    require!(Root);
    let script = |query: &Received| {
        let size = Message::parse(&query.octets).map_or(0, |query| query.qname().len() * 9);
        let text: Vec<u8> = vec![b'x'; size]
            .chunks(255)
            .flat_map(|part| [&[u8::try_from(part.len()).unwrap_or(255)], part].concat())
            .collect();
        let mut reply = reply_to(&query.octets, TXT, &[text]);
        append_opt(&mut reply, &Opt::default());
        vec![Act::Send(reply)]
    };
    let (network, _backend, _dotd) = scripted(Config::new(), script);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    for labels in 1..60 {
        let qname = format!("{}.{}", "n".repeat(labels), "m".repeat(labels));
        let opt = Opt::with(OPTION_PADDING, &vec![0xaa; labels]);
        let answer = session.exchange(&Query::new(1, &qname, TXT).opt(opt).octets());
        assert_eq!(answer.rdata(TXT).len(), 1);
        assert_padded(&answer);
    }
}

/// Goal: no padding for a query without EDNS (RFC 7830 §4), nor for EDNS without the option (RFC 8467 §4).
/// Method: both queries; `dns.padding = false` for the padded one. Covers: C-37
#[test]
fn who_does_not_pad_gets_no_padding() {
    require!(Root);
    let (network, _backend, _dotd) = scripted(Config::new(), honest);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    assert_eq!(session.exchange(&Query::new(1, "dotd.test", A).octets()).opt_count(), 0);
    let edns = session.exchange(&Query::new(2, "dotd.test", A).opt(Opt::default()).octets());
    assert_eq!(edns.option(OPTION_PADDING), None);
    let (network, _backend, _dotd) = scripted(Config::new().set("dns", "padding", "false"), honest);
    let answer = Dot::connect(&network.client, SERVER_V4).exchange(&padded(3, A, &[0; 8]));
    assert_eq!(answer.option(OPTION_PADDING), None);
}

/// Goal: padding goes no further than the TLS hop, in either direction (RFC 7830 §6).
/// Method: what the backend received; a backend that pads by itself. Covers: C-38
#[test]
fn padding_is_stripped_before_a_cleartext_backend() {
    require!(Root);
    let script = |query: &Received| {
        let mut reply = reply_to(&query.octets, A, &[HONEST.to_vec()]);
        append_opt(&mut reply, &Opt::with(OPTION_PADDING, &[0; 33]));
        vec![Act::Send(reply)]
    };
    let (network, backend, _dotd) = scripted(Config::new(), script);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    assert_padded(&session.exchange(&padded(1, A, &[0; 40])));
    let edns = session.exchange(&Query::new(2, "dotd.test", A).opt(Opt::default()).octets());
    assert_eq!(edns.option(OPTION_PADDING), None, "the backend's padding came through");
    for received in backend.received() {
        let asked = Message::parse(&received.octets).expect("dotd sends whole messages");
        assert_eq!(asked.option(OPTION_PADDING), None);
    }
}

/// Goal: responses that dotd makes itself are padded too. Method: SERVFAIL, BADVERS and a refused transfer. FORMERR for
/// two OPTs cannot be padded (which OPT counts?), NOTIMP has no OPT. Covers: C-39
#[test]
fn own_errors_are_padded() {
    require!(Root);
    let (network, _backend, _dotd) = scripted_with(Config::new(), "timeout = \"200ms\"", |_| Vec::new());
    let mut session = Dot::connect(&network.client, SERVER_V4);
    let failed = session.exchange(&padded(1, A, &[0; 8]));
    assert_eq!(failed.rcode(), 2);
    assert_padded(&failed);
    let future = Opt { version: 1, ..Opt::with(OPTION_PADDING, &[0; 8]) };
    let refused = session.exchange(&Query::new(2, "dotd.test", A).opt(future).octets());
    assert_eq!(refused.rcode(), 16);
    assert_padded(&refused);
    let transfer = session.exchange(&padded(3, AXFR, &[0; 8]));
    assert_eq!(transfer.rcode(), 5);
    assert_padded(&transfer);
}
