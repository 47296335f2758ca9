//! Cookies (RFC 7873): a client with one stays with one of several backends, because a cookie is valid at one server
//! only.
//!
//! Before: backends that accept only their own cookies. After: the client gets its answer at its second try, as without
//! dotd.

use dot_tests::{
    harness::{
        config::Config,
        dot::Dot,
        message::{A, Opt, Query, append_opt, reply_to},
        netns::{Network, SERVER_V4},
        response::Message,
        scene::HONEST,
        scripted::{Act, Mood, Received, Scripted},
        server::Server,
    },
    require,
};

const OPTION_COOKIE: u16 = 10;
const BADCOOKIE: u16 = 23;

/// Answers a client that shows this server's cookie; another client gets BADCOOKIE with the cookie.
fn guarded(own: u8) -> impl Fn(&Received) -> Vec<Act> + Send + Sync + 'static {
    move |query: &Received| {
        let asked = Message::parse(&query.octets).expect("whole");
        let cookie = asked.option(OPTION_COOKIE).expect("a client with a cookie");
        let is_ours = cookie.get(8..) == Some(&[own; 8][..]);
        let rdata = if is_ours { vec![HONEST.to_vec()] } else { Vec::new() };
        let mut reply = reply_to(&query.octets, A, &rdata);
        append_opt(&mut reply, &Opt::with(OPTION_COOKIE, &[&cookie[..8], &[own; 8]].concat()));
        if !is_ours {
            // 23: seven in the header, one in the OPT, which begins 11 + 4 + 16 octets before the end.
            reply[3] |= 7;
            let at = reply.len() - 31 + 5;
            reply[at] = 1;
        }
        vec![Act::Send(reply)]
    }
}

fn asking(name: &str, cookie: &[u8]) -> Vec<u8> {
    Query::new(1, name, A).opt(Opt::with(OPTION_COOKIE, cookie)).octets()
}

/// Goal: a client that shows the cookie it was given is answered, whatever the policy, the name and the connection, and
/// never gets BADCOOKIE without end; clients spread over the backends, and a client whose backend goes down gets
/// another one. Method: three backends, each with a cookie of its own, clients with cookies of theirs. Covers: C-242
#[test]
fn a_client_with_a_cookie_stays_with_a_backend() {
    require!(Root);
    for policy in ["round-robin", "least-outstanding", "hash"] {
        let network = Network::new();
        let backends = [1, 2, 3].map(|own| Scripted::start(&network, guarded(own)));
        let mut config = Config::new().set("balance", "policy", &format!("\"{policy}\"")).set(
            "balance",
            "health_interval",
            "\"100ms\"",
        );
        for backend in &backends {
            config = config.backend_with(backend.address, "timeout = \"2s\"");
        }
        let dotd = Server::start(&network, &config);
        let mut sessions = [(); 2].map(|()| Dot::connect(&network.client, SERVER_V4));
        let mut servers = [0; 4];
        for client in 0..24_u8 {
            let answer = sessions[0].exchange(&asking("host-0.dotd.test", &[client; 8]));
            assert_eq!(answer.rcode(), BADCOOKIE, "{policy}");
            let cookie = answer.option(OPTION_COOKIE).expect("the server's");
            servers[usize::from(cookie[8])] += 1;
            for (number, session) in sessions.iter_mut().enumerate() {
                for host in 0..3 {
                    let name = format!("host-{number}{host}.dotd.test");
                    let answer = session.exchange(&asking(&name, &cookie));
                    assert_eq!((answer.rcode(), answer.rdata(A)), (0, vec![&HONEST[..]]), "{policy}");
                }
            }
        }
        assert!(servers[1..].iter().all(|clients| *clients > 0), "{policy}: {servers:?}");
        // This client's backend is gone: the client gets the cookie of another backend, and is answered with that.
        let answer = sessions[0].exchange(&asking("a.dotd.test", &[0; 8]));
        let gone = answer.option(OPTION_COOKIE).expect("the server's")[8];
        backends[usize::from(gone) - 1].be(Mood::Deaf);
        let answer = sessions[0].exchange(&asking("b.dotd.test", &[&[0; 8][..], &[gone; 8]].concat()));
        let cookie = answer.option(OPTION_COOKIE).expect("another server's");
        assert!(answer.rcode() == BADCOOKIE && cookie[8] != gone, "{policy}");
        assert_eq!(sessions[1].exchange(&asking("c.dotd.test", &cookie)).rdata(A), [HONEST], "{policy}");
        drop(dotd);
    }
}
