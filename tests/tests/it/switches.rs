//! Switches of a running dotd: `dotd drain` and `undrain`, and the answers to load balancers' probes.
//!
//! Before: a dotd that serves, with `control.http`. After: probes gave the right answers, and clients were served all
//! the time.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
};

use dot_tests::{
    harness::{
        config::Config,
        dot::Dot,
        eventually,
        message::{A, Query},
        netns::{Network, SERVER_V4},
        server::Server,
    },
    require,
};

const HTTP: &str = "\"127.0.0.1:8855\"";

/// The status code of a path, and the body.
fn probe(network: &Network, path: &'static str) -> (u16, serde_json::Value) {
    let text = network.server.run(move || {
        let mut stream = TcpStream::connect("127.0.0.1:8855").expect("control.http");
        write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").expect("sent");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("answered");
        text
    });
    let code = text.split(' ').nth(1).and_then(|code| code.parse().ok());
    let body = text.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
    (code.unwrap_or_else(|| panic!("{text}")), serde_json::from_str(body).expect("JSON"))
}

/// Goal: a drain makes load balancers send clients elsewhere, still serves every client, and ends when it is taken back
/// or its time is over. Method: the three probes before, during and after; a client's query during the drain; a reload
/// in between; a drain of one second.
#[test]
fn a_drain_sends_load_balancers_away_and_nobody_else() {
    require!(Root);
    let network = Network::new();
    let config = Config::new().xdp("off").set("control", "http", HTTP);
    let dotd = Server::start(&network, &config);
    let codes = || ["/health", "/health/live", "/health/ready"].map(|path| probe(&network, path).0);
    assert_eq!(codes(), [200, 200, 200]);
    let said = dotd.operate(&["drain"]);
    assert!(said.is_success && said.has("drained until `dotd undrain`"), "{}", said.text);
    assert_eq!(codes(), [503, 200, 503]);
    assert!(dotd.operate(&["reload"]).is_success);
    let (code, body) = probe(&network, "/health/ready");
    assert!(code == 503 && body["reason"].as_str().is_some_and(|why| why.contains("operator")), "{body}");
    assert!(dotd.operate(&["status"]).has("load balancers get 503 until"));
    let answer = Dot::connect(&network.client, SERVER_V4).exchange(&Query::new(1, "dotd.test", A).octets());
    assert_eq!(answer.id, 1);
    assert!(dotd.operate(&["undrain"]).is_success);
    assert_eq!(codes(), [200, 200, 200]);
    assert!(dotd.operate(&["drain", "--for", "1s"]).is_success);
    eventually("it ends by itself", || (probe(&network, "/health/ready").0 == 200).then_some(()));
    assert!(!dotd.operate(&["drain", "--for", "8d"]).is_success);
    dotd.stop();
}

/// Goal: a dotd without a working backend is reported as not ready, and as live, so that it is not restarted. Method: a
/// backend's port where nothing listens, until the health check has found that out.
#[test]
fn without_a_backend_dotd_is_live_and_not_ready() {
    require!(Root);
    let network = Network::new();
    let nobody: SocketAddr = "127.0.0.1:9".parse().expect("an address");
    let config = Config::new().xdp("off").set("control", "http", HTTP).backend(nobody);
    let dotd = Server::start(&network, &config);
    eventually("it is not ready", || (probe(&network, "/health/ready").0 == 503).then_some(()));
    let (_, body) = probe(&network, "/health/ready");
    assert_eq!(
        (&body["reason"], &body["backends"][0]["state"]),
        (&"every backend is down".into(), &"down".into())
    );
    assert_eq!(probe(&network, "/health/live").0, 200);
    dotd.stop();
}
