//! What an operator sees of a running dotd: status, metrics and log lines, and that they agree.
//!
//! Before: a dotd with scripted backends. After: each fact is found under the name that the config gives it.
//! Never: looks into a running process but by what an operator has: verbs, HTTP and standard error.

use dot_tests::{
    harness::{
        clients::http,
        clients::tool,
        config::Config,
        eventually,
        netns::Network,
        scene::honest,
        scripted::Scripted,
        server::{Server, binary},
    },
    require,
};
use nix::sys::signal::Signal;

/// A config whose metrics can be scraped, without XDP.
fn watched() -> Config {
    Config::new().xdp("off").set("control", "http", "\"127.0.0.1:8853\"")
}

/// Goal: a backend has one name everywhere: in `dotd status`, in the label `backend` of metrics, in log lines; a backend
/// without a name has its address, and a reload changes names. Method: one backend with a name that answers, one without;
/// then a name for a port where nobody listens. Covers: C-400
#[test]
fn a_backend_has_one_name_everywhere() {
    require!(Root);
    let network = Network::new();
    let backend = Scripted::start(&network, honest);
    let plain = "127.0.0.1:5399".parse().expect("an address");
    let config = watched().backend_with(backend.address, "name = \"resolver-1\"");
    let mut dotd = Server::start(&network, &config.clone().backend_with(plain, ""));
    let status = dotd.status();
    assert_eq!(status["backends"][0]["name"], "resolver-1");
    assert_eq!(status["backends"][0]["address"], backend.address.to_string());
    assert_eq!(status["backends"][1]["name"], "127.0.0.1:5399");
    let socket = dotd.folder().join("run/control.sock").display().to_string();
    let dotd_program = binary().display().to_string();
    let said = tool(&network.server, &dotd_program, &["status", "--socket", &socket]);
    let row = format!("backend      resolver-1: {} (udp), ", backend.address);
    assert!(said.has(&row) && said.has("backend      127.0.0.1:5399 (udp), "), "{}", said.text);
    let metrics = eventually("both are known", || {
        let metrics = http(&network.server, "/metrics");
        (metrics.contains("dotd_backend_up{backend=\"resolver-1\"} 1")
            && metrics.contains("dotd_backend_up{backend=\"127.0.0.1:5399\"} 0"))
        .then_some(metrics)
    });
    assert!(!metrics.contains(&format!("backend=\"{}\"", backend.address)), "{metrics}");
    eventually("the log says it", || dotd.stderr().contains("backend=127.0.0.1:5399").then_some(()));

    dotd.rewrite_config(&config.backend_with(plain, "name = \"spare\""));
    dotd.signal(Signal::SIGHUP);
    eventually("the new name", || (dotd.status()["backends"][1]["name"] == "spare").then_some(()));
    let metrics = http(&network.server, "/metrics");
    assert!(metrics.contains("dotd_backend_up{backend=\"spare\"} 0"), "health is still known: {metrics}");
}
