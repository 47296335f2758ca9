//! RFC 8945, TSIG: a signed message passes octet for octet, so that its signature holds on the other side.
//!
//! Before: servers that know the key, and a scripted one that shows octets. After: kdig has verified the responses.

use dot_tests::{
    harness::{
        clients::kdig,
        config::Config,
        dot::Dot,
        message::{A, OPTION_KEEPALIVE, OPTION_PADDING, Opt, Query, append_opt, name, reply_to},
        netns::{Network, SERVER_V4},
        response::Message,
        scene::{HONEST, scripted},
        scripted::{Act, Received},
        server::Server,
        servers::{KEY_NAME, KEY_SECRET, Kind},
    },
    require,
};

/// A TSIG record with an arbitrary MAC: a forwarder cannot verify it.
fn append_tsig(message: &mut Vec<u8>) {
    message[11] += 1;
    message.extend(name("key.dotd.test"));
    message.extend([0, 250, 0, 255, 0, 0, 0, 0]);
    let mut rdata = name("hmac-sha256");
    rdata.extend([0, 0, 0x65, 0x53, 0xf1, 0, 1, 44, 0, 32]);
    rdata.extend([0x5a; 32]);
    rdata.extend([0x12, 0x34, 0, 0, 0, 0]);
    message.extend(u16::try_from(rdata.len()).expect("short").to_be_bytes());
    message.extend(rdata);
}

/// Goal: a signed query reaches the backend, and a signed response the client, with only the ID changed, which no
/// signature covers (RFC 8945 §5.3.1): options of other hops stay too (RFC 5625 §4.5). Method: padding and keepalive
/// before the TSIG, in both directions; octets compared. Covers: C-50, A-38
#[test]
fn signed_messages_pass_octet_for_octet() {
    require!(Root);
    let answer_to = |query: &[u8]| {
        let mut reply = reply_to(query, A, &[HONEST.to_vec()]);
        append_opt(&mut reply, &Opt::with(OPTION_PADDING, &[3; 21]));
        append_tsig(&mut reply);
        reply
    };
    let script = move |query: &Received| vec![Act::Send(answer_to(&query.octets))];
    let (network, backend, _dotd) = scripted(Config::new(), script);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    let hops =
        Opt { options: vec![(OPTION_KEEPALIVE, vec![]), (OPTION_PADDING, vec![7; 40])], ..Opt::default() };
    for opts in [vec![], vec![Opt::default()], vec![hops]] {
        let mut query = Query { opts, ..Query::new(0x1234, "wWw.dotd.test", A) }.octets();
        append_tsig(&mut query);
        session.ask(&query);
        let answer = session.receive_octets().expect("an answer");
        let received = backend.received().pop().expect("it was asked").octets;
        assert_eq!(received[2..], query[2..], "the backend got what the client sent");
        assert_eq!(answer[..2], query[..2], "the client's ID");
        assert_eq!(answer[2..], answer_to(&received)[2..], "the client got what the backend sent");
        assert!(Message::parse(&answer).is_some());
    }
}

/// Goal: signatures hold through dotd, in both directions, and a wrong one is detected. Method: kdig signs and
/// verifies; NSD, BIND and Knot verify and sign; then a secret that they do not have. Covers: C-50, A-38
#[test]
fn signatures_hold_through_us() {
    require!(
        Root,
        Command("kdig"),
        Command("nsd"),
        Command("named"),
        Command("knotd"),
        Command("dnssec-signzone")
    );
    for kind in [Kind::Nsd, Kind::Bind, Kind::Knot] {
        let network = Network::new();
        let backend = kind.start(&network, 5300);
        let _dotd = Server::start(&network, &Config::new().xdp("off").backend(backend.address));
        let signed = |secret: &str, rest: &str| {
            kdig(&network.client, SERVER_V4, &format!("+tls -y hmac-sha256:{KEY_NAME}:{secret} {rest}"))
        };
        for rest in ["www.dotd.test A", "+dnssec +padding www.dotd.test A", "big.dotd.test TXT"] {
            let said = signed(KEY_SECRET, rest);
            assert!(said.is_success && said.has("status: NOERROR"), "{kind:?} {rest}: {}", said.text);
            assert!(
                said.has(";; TSIG PSEUDOSECTION") && said.has("TSIG	hmac-sha256."),
                "{kind:?}: {}",
                said.text
            );
            assert!(!said.has(";; WARNING") && !said.has(";; ERROR"), "{kind:?} {rest}: {}", said.text);
        }
        let wrong = signed("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "www.dotd.test A");
        assert!(!wrong.has("status: NOERROR"), "{kind:?}: {}", wrong.text);
    }
}
