//! Backends in clear that designate a TLS server: it is used once verified, and discovery only upgrades. (RFC 9462 §4.)
//!
//! Before: a server in clear that answers for `_dns.resolver.arpa`, and TLS servers with and without a certificate for its address.
//! After: where dotd's queries went.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
};

use dot_tests::{
    harness::{
        config::Config,
        dot::Dot,
        eventually,
        message::{A, SERVFAIL, host, reply_to},
        netns::{Network, SERVER_V4},
        pki::Authority,
        process::bounded,
        scene::{HONEST, honest},
        scratch::Scratch,
        scripted::{Act, Mood, Received, Scripted},
        server::{Server, binary},
    },
    require,
};
use dot_userspace::dns::{TYPE_SVCB, parameters};
use serde_json::Value;

/// Where the TLS server is that the server in clear designates now.
type Designated = Arc<Mutex<Option<SocketAddr>>>;

fn is_for_clients(query: &Received) -> bool {
    !query.octets.windows(8).any(|part| part == b"resolver")
}

/// A server in clear that answers clients, and says which TLS server is its own.
fn in_clear(network: &Network, designated: &Designated) -> Scripted {
    let designated = Arc::clone(designated);
    Scripted::start(network, move |query: &Received| {
        if is_for_clients(query) {
            return honest(query);
        }
        let at = *designated.lock().expect("no script panics");
        let rdata = at.map(|at| [&[0, 1, 0][..], &parameters(at.port(), &[at.ip()])].concat());
        let rdata: Vec<_> = rdata.into_iter().collect();
        vec![Act::Send(reply_to(&query.octets, TYPE_SVCB, &rdata))]
    })
}

/// Clients' queries that a server has got.
fn clients(server: &Scripted) -> usize {
    server.received().iter().filter(|query| is_for_clients(query)).count()
}

fn config(clear: &Scripted, ca: &Path) -> Config {
    let config = Config::new().xdp("off").set("server", "workers", "1");
    let config = config.set("balance", "health_interval", "\"100ms\"");
    let keys = format!("name = \"office\"\ntimeout = \"600ms\"\ndiscover = true\nca = \"{}\"", ca.display());
    config.backend_with(clear.address, &keys)
}

fn transport(dotd: &Server) -> String {
    dotd.status()["backends"][0]["transport"].as_str().expect("it is there").to_owned()
}

/// Ends dotd in order, and starts it again.
fn again(mut dotd: Server, network: &Network, config: &Config) -> Server {
    dotd.signal(nix::sys::signal::Signal::SIGTERM);
    let (ended, scratch) = dotd.wait();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    Server::launch(network, config, scratch, &[])
}

/// Goal: the TLS server whose certificate holds the address of the server in clear is asked in its place, stays when the answer is
/// gone, over a restart too, and nothing goes in clear when its TLS fails. Method: discovery; an answer without it; a restart; the
/// TLS server closes each connection. Covers: C-660, A-666
#[test]
fn a_verified_server_is_asked_over_tls() {
    require!(Root);
    let (network, scratch, authority) = (Network::new(), Scratch::new(), Authority::new());
    let ca = scratch.write("ca.pem", authority.pem());
    let secure = Scripted::start_over_tls(&network, authority.issue("127.0.0.1").serving(), honest);
    let designated = Designated::new(Mutex::new(Some(secure.address)));
    let clear = in_clear(&network, &designated);
    let config = config(&clear, &ca);
    let mut dotd = Server::launch(&network, &config, scratch, &[]);
    eventually("it is found", || (transport(&dotd) == "tls").then_some(()));
    let asks = |id: u16| Dot::connect(&network.client, SERVER_V4).exchange(&host(id));
    let before = clients(&clear);
    for id in 0..10 {
        assert_eq!(asks(id).rdata(A), [HONEST]);
    }
    assert_eq!((clients(&clear), secure.received().len()), (before, 10));
    assert!(dotd.stderr().contains("it is asked over TLS"), "{}", dotd.stderr());
    *designated.lock().expect("no script panics") = None;
    dotd = again(dotd, &network, &config);
    assert_eq!(transport(&dotd), "tls", "it was verified before");
    assert_eq!(asks(20).rdata(A), [HONEST]);
    assert_eq!(clients(&clear), before);
    secure.be(Mood::Curt);
    dotd = again(dotd, &network, &config);
    eventually("it is suspected", || {
        assert_eq!(asks(30).rcode(), SERVFAIL);
        (dotd.backend_states()[0] == "downgrade_suspected").then_some(())
    });
    assert_eq!(clients(&clear), before, "nothing in clear");
    assert_eq!(dotd.stats().difference(), [0; 3]);
}

/// Goal: a TLS server without a certificate for the address, of an authority that is not believed, or that does not answer, is not
/// used: clients are served in clear as before, and the log says why. Method: each of them.
#[test]
fn a_server_without_proof_is_not_asked() {
    require!(Root);
    let (authority, other) = (Authority::new(), Authority::new());
    for (issued, mood) in [
        (authority.issue("127.0.0.2"), Mood::Willing),
        (other.issue("127.0.0.1"), Mood::Willing),
        (authority.issue("127.0.0.1"), Mood::Deaf),
    ] {
        let (network, scratch) = (Network::new(), Scratch::new());
        let ca = scratch.write("ca.pem", authority.pem());
        let secure = Scripted::start_over_tls(&network, issued.serving(), honest);
        secure.be(mood);
        let designated = Designated::new(Mutex::new(Some(secure.address)));
        let clear = in_clear(&network, &designated);
        let dotd = Server::launch(&network, &config(&clear, &ca), scratch, &[]);
        eventually("it is refused", || {
            dotd.stderr().contains("not proved to be the same server").then_some(())
        });
        let answer = Dot::connect(&network.client, SERVER_V4).exchange(&host(1));
        assert_eq!(answer.rdata(A), [HONEST]);
        assert_eq!((&*transport(&dotd), clients(&clear)), ("udp", 1));
        assert!(secure.received().is_empty());
    }
}

/// Goal: `dotd check --connect` tries the TLS server that `run` would ask, and says why a designated one is not used. Method: servers
/// with and without a certificate for the address. Covers: C-660, C-590
#[test]
fn a_check_looks_for_designated_servers() {
    require!(Root);
    let authority = Authority::new();
    for (issued, transport, has_reason) in
        [(authority.issue("127.0.0.1"), "tls", false), (authority.issue("127.0.0.2"), "udp", true)]
    {
        let (network, scratch) = (Network::new(), Scratch::new());
        let ca = scratch.write("ca.pem", authority.pem());
        let secure = Scripted::start_over_tls(&network, issued.serving(), honest);
        let clear = in_clear(&network, &Designated::new(Mutex::new(Some(secure.address))));
        let text = config(&clear, &ca).text(&scratch.folder("state"), &scratch.folder("run"));
        let mut command = bounded(&binary().display().to_string());
        command.arg("check").arg("-c").arg(scratch.write("dotd.toml", text)).args(["--connect", "--json"]);
        let output = network.server.output(command);
        let said: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let one = &said["backends"][0];
        assert_eq!((&one["transport"], &one["outcome"]), (&transport.into(), &"answered".into()), "{said}");
        let warnings = one["warnings"].as_array().map(Vec::as_slice).unwrap_or_default();
        let is_reason = |warning: &Value| warning.as_str().is_some_and(|text| text.starts_with("discover: "));
        assert_eq!(warnings.iter().any(is_reason), has_reason, "{said}");
    }
}
