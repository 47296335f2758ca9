//! RFC 7871 and RFC 7873: client subnet and cookies pass between the client and the server.
//!
//! Before: `harness::scene`. After: options passed unchanged, and none was added.

use dot_tests::{
    harness::{
        config::Config,
        dot::Dot,
        message::{A, Opt, Query, append_opt, reply_to},
        netns::SERVER_V4,
        response::Message,
        scene::{HONEST, honest, scripted},
        scripted::{Act, Received},
    },
    require,
};

const OPTION_SUBNET: u16 = 8;
const OPTION_COOKIE: u16 = 10;

/// Goal: by default no subnet is added (RFC 7871 §11.1), and one that a client sends passes unchanged, also /0, which
/// means that none must be added (§7.1.2). Method: no OPT, an empty OPT, /0, /24 and /56; the octets that the backend
/// gets. Covers: C-76
#[test]
fn subnets_are_the_clients_own() {
    require!(Root);
    let (network, backend, _dotd) = scripted(Config::new(), honest);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    let subnets: [&[u8]; 3] =
        [&[0, 1, 0, 0], &[0, 1, 24, 0, 192, 0, 2], &[0, 2, 56, 0, 0x20, 1, 0xd, 0xb8, 0, 0, 0]];
    let opts =
        [None, Some(Opt::default())].into_iter().chain(subnets.map(|octets| Some(Opt::with(8, octets))));
    for opt in opts {
        let query = opt.iter().cloned().fold(Query::new(1, "www.dotd.test", A), Query::opt);
        assert_eq!(session.exchange(&query.octets()).rdata(A), [HONEST]);
        let asked = Message::parse(&backend.received().pop().expect("it was asked").octets).expect("whole");
        let sent = opt.and_then(|opt| opt.options.first().map(|(_, value)| value.clone()));
        assert_eq!(asked.option(OPTION_SUBNET), sent);
    }
}

/// Goal: a cookie and the server's answer to it, BADCOOKIE included, pass between client and server (RFC 7873 §5).
/// Method: a backend that requires a server cookie: first BADCOOKIE with a cookie, then the answer to the client that
/// shows it. Covers: C-44, C-53
#[test]
fn cookies_are_the_clients_own() {
    require!(Root);
    let script = |query: &Received| {
        let asked = Message::parse(&query.octets).expect("whole");
        let cookie = asked.option(OPTION_COOKIE).unwrap_or_default();
        let is_known = cookie.get(8..).is_some_and(|server| server == [9; 16]);
        let answers = if is_known { vec![HONEST.to_vec()] } else { Vec::new() };
        let mut reply = reply_to(&query.octets, A, &answers);
        let whole = [cookie.get(..8).unwrap_or_default(), &[9; 16]].concat();
        append_opt(&mut reply, &Opt::with(OPTION_COOKIE, &whole));
        if !is_known {
            // BADCOOKIE is 23: seven in the header, one in the OPT record.
            let opt = reply.len() - 4 - whole.len() - 6;
            reply[3] |= 7;
            reply[opt] = 1;
        }
        vec![Act::Send(reply)]
    };
    let (network, _backend, _dotd) = scripted(Config::new(), script);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    let with =
        |cookie: &[u8]| Query::new(1, "www.dotd.test", A).opt(Opt::with(OPTION_COOKIE, cookie)).octets();
    let first = session.exchange(&with(&[1, 2, 3, 4, 5, 6, 7, 8]));
    assert_eq!(first.rcode(), 23, "BADCOOKIE");
    let second = session.exchange(&with(&first.option(OPTION_COOKIE).expect("a server cookie")));
    assert_eq!((second.rcode(), second.rdata(A)), (0, vec![&HONEST[..]]));
}
