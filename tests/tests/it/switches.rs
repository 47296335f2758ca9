//! Switches of a running dotd: `dotd drain` and `undrain`, and the answers to load balancers' probes.
//!
//! Before: a dotd that serves, with `control.http`. After: probes gave the right answers, and clients were served all
//! the time.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use dot_tests::{
    harness::{
        config::Config,
        dot::Dot,
        eventually,
        message::{A, Query, reply_to},
        netns::{Network, SERVER_V4},
        scratch::Scratch,
        scripted::{Act, Received, Scripted},
        server::Server,
    },
    require,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

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
    let closed: SocketAddr = "127.0.0.1:9".parse().expect("an address");
    let config = Config::new().xdp("off").set("control", "http", HTTP).backend(closed);
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

/// Whether DNS over TLS is served: where it is off the SYN is dropped, or the connection is closed at once, where dotd
/// has no right to have it dropped.
fn is_taken(network: &Network) -> bool {
    let server = SocketAddr::new(SERVER_V4, 853);
    network.client.run(move || {
        let Ok(mut stream) = TcpStream::connect_timeout(&server, Duration::from_secs(1)) else {
            return false;
        };
        stream.set_read_timeout(Some(Duration::from_secs(1))).expect("a time");
        // The server sends nothing before the client does.
        stream
            .read(&mut [0; 1])
            .is_err_and(|error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
    })
}

/// The ID of an answer in clear, by UDP.
fn ask_in_clear(network: &Network) -> u16 {
    let query = Query::new(7, "dotd.test", A).octets();
    network.client.run(move || {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
        socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a time");
        socket.connect((SERVER_V4, 53)).expect("an address");
        socket.send(&query).expect("sent");
        let mut answer = [0; 512];
        let octets = socket.recv(&mut answer).expect("answered");
        assert!(octets > 12);
        u16::from_be_bytes([answer[0], answer[1]])
    })
}

/// Goal: `dotd disable` ends DNS over TLS at once, and nothing else, with and without XDP, until `dotd enable`. Method: a session
/// from before ends, SYN are dropped (by XDP with its own reason), DNS in clear is answered, probes and status say so, a reload
/// changes nothing; then the same connection comes to be.
#[test]
fn dot_is_off_and_on_again() {
    require!(Root);
    for xdp in ["off", "auto"] {
        let network = Network::new();
        let config = Config::new().xdp(xdp).set("control", "http", HTTP);
        let config = config.set("listen", "do53", "[\"0.0.0.0:53\"]");
        let dotd = Server::start(&network, &config);
        let mut session = Dot::connect(&network.client, SERVER_V4);
        assert_eq!(session.exchange(&Query::new(1, "dotd.test", A).octets()).id, 1);
        let said = dotd.operate(&["disable"]);
        assert!(said.is_success && said.has("off until `dotd enable`, or a restart"), "{}", said.text);
        // A session from before ends.
        session.end();
        eventually("no connection comes to be", || (!is_taken(&network)).then_some(()));
        assert!(!is_taken(&network), "nor later");
        let stats = dotd.stats();
        if !dotd.xdp().starts_with("off") {
            assert!(stats.packets("drop", "dot_off") > 0, "{stats:?}");
        }
        assert_eq!(ask_in_clear(&network), 7);
        assert!(dotd.operate(&["reload"]).is_success && !is_taken(&network), "a reload keeps it");
        assert!(dotd.operate(&["status"]).has("OFF          DNS over TLS is switched off"));
        for path in ["/health", "/health/ready"] {
            let (code, body) = probe(&network, path);
            assert!(code == 503 && body.to_string().contains("dotd enable"), "{path}: {body}");
        }
        assert!(dotd.operate(&["enable"]).is_success);
        eventually("connections come to be", || is_taken(&network).then_some(()));
        let mut session = Dot::connect(&network.client, SERVER_V4);
        assert_eq!(session.exchange(&Query::new(2, "dotd.test", A).octets()).id, 2);
        assert_eq!(probe(&network, "/health/ready").0, 200);
        drop(session);
        dotd.counts("all is accounted for", |stats| stats.difference() == [0; 3]);
        dotd.stop();
    }
}

/// Goal: what is off stays off over a crash of the engine, and with --persist over a restart; without it a restart switches it on.
/// Method: KILL for the engine, then two restarts in the same folders.
#[test]
fn what_is_off_stays_off() {
    require!(Root);
    let network = Network::new();
    let config = Config::new().xdp("off").set("control", "http", HTTP);
    let again = |mut dotd: Server| {
        dotd.signal(Signal::SIGTERM);
        let (_, scratch) = dotd.wait();
        Server::launch(&network, &config, scratch, &[])
    };
    let dotd = Server::launch(&network, &config, Scratch::new(), &[]);
    assert!(dotd.operate(&["disable"]).is_success);
    let engine =
        || dotd.status()["engine_pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).expect("a process");
    let before = engine();
    kill(Pid::from_raw(before), Signal::SIGKILL).expect("it runs");
    let text = eventually("another engine says that it is off", || {
        let said = dotd.operate(&["status"]);
        (said.is_success && engine() != before).then_some(said.text)
    });
    assert!(text.contains("OFF ") && !is_taken(&network), "{text}");
    let dotd = again(dotd);
    eventually("a restart switches it on", || is_taken(&network).then_some(()));
    let said = dotd.operate(&["disable", "--persist"]);
    assert!(said.is_success && said.has("also after a restart"), "{}", said.text);
    let dotd = again(dotd);
    assert!(dotd.operate(&["status"]).has("also after a restart"));
    eventually("it is off", || (!is_taken(&network)).then_some(()));
    assert!(dotd.operate(&["enable"]).is_success);
    let dotd = again(dotd);
    eventually("it is on for good", || is_taken(&network).then_some(()));
    dotd.stop();
}

/// Goal: a backend that an operator drains gets no new query while another can be asked, not after a reload either; one of
/// another weight gets another share; `enable` takes both back. Method: two backends with answers of their own, in turn; fifty queries
/// under each switch.
#[test]
fn a_drained_backend_gets_no_new_query() {
    require!(Root);
    let network = Network::new();
    let answer = |last: u8| {
        move |query: &Received| vec![Act::Send(reply_to(&query.octets, A, &[vec![192, 0, 2, last]]))]
    };
    let backends = [1, 2].map(|last| Scripted::start(&network, answer(last)));
    let config = Config::new().xdp("off").set("balance", "policy", "\"round-robin\"");
    let config = config.backend_with(backends[0].address, "name = \"one\"");
    let config = config.backend_with(backends[1].address, "name = \"two\"");
    let dotd = Server::start(&network, &config);
    let ones = || {
        let mut session = Dot::connect(&network.client, SERVER_V4);
        let ask =
            |id| session.exchange(&Query::new(id, "www.dotd.test", A).octets()).rdata(A) == [[192, 0, 2, 1]];
        (0..50).map(ask).filter(|is_one| *is_one).count()
    };
    eventually("both are up", || (dotd.backend_states() == ["up", "up"]).then_some(()));
    assert_eq!(ones(), 25);
    let said = dotd.operate(&["backend", "drain", "one"]);
    assert!(said.is_success && said.has("one gets no new queries"), "{}", said.text);
    eventually("it gets none", || (ones() == 0).then_some(()));
    assert!(dotd.operate(&["reload"]).is_success);
    assert_eq!(ones(), 0, "a reload keeps it");
    assert!(dotd.operate(&["status"]).has("`dotd backend enable`"));
    assert!(dotd.operate(&["backend", "drain", "two"]).is_success);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    let answer = session.exchange(&Query::new(1, "www.dotd.test", A).octets());
    assert_eq!(answer.rdata(A).len(), 1, "where both are drained, one is asked");
    assert!(dotd.operate(&["backend", "enable", "two"]).is_success);
    let said = dotd.operate(&["backend", "weight", "one", "4"]);
    assert!(said.is_success && said.has("one has weight 4"), "{}", said.text);
    eventually("it gets four of five", || (ones() == 40).then_some(()));
    assert!(dotd.operate(&["backend", "enable", "one"]).is_success);
    eventually("it gets half again", || (ones() == 25).then_some(()));
    for words in [["backend", "drain", "three"].as_slice(), &["backend", "weight", "one", "0"]] {
        assert!(!dotd.operate(words).is_success);
    }
    dotd.stop();
}

/// Goal: a backend that an operator has drained, or given another weight, stays so over a crash of the engine and an upgrade, from the
/// first query on, and can be enabled after it; a restart uses backends as the config says. Method: two backends with answers of their
/// own, in turn; queries after each.
#[test]
fn switches_of_backends_outlast_an_engine() {
    require!(Root);
    let network = Network::new();
    let answer = |last: u8| {
        move |query: &Received| vec![Act::Send(reply_to(&query.octets, A, &[vec![192, 0, 2, last]]))]
    };
    let backends = [1, 2].map(|last| Scripted::start(&network, answer(last)));
    let config = Config::new().xdp("off").set("balance", "policy", "\"round-robin\"");
    let config = config.set("server", "user", "\"nobody\"");
    let config = config.backend_with(backends[0].address, "name = \"one\"");
    let config = config.backend_with(backends[1].address, "name = \"two\"");
    let mut dotd = Server::launch(&network, &config, Scratch::new(), &[]);
    let ones = || {
        let mut session = Dot::connect(&network.client, SERVER_V4);
        let ask =
            |id| session.exchange(&Query::new(id, "www.dotd.test", A).octets()).rdata(A) == [[192, 0, 2, 1]];
        (0..20).map(ask).filter(|is_one| *is_one).count()
    };
    assert!(dotd.operate(&["backend", "drain", "one"]).is_success);
    eventually("it gets none", || (ones() == 0).then_some(()));
    let before = dotd.engines();
    dotd.signal_engine(9);
    eventually("another engine serves", || (dotd.engines() > before).then_some(()));
    assert_eq!(ones(), 0, "after a crash");
    assert!(dotd.operate(&["status"]).has("`dotd backend enable`"));
    let said = dotd.operate(&["upgrade"]);
    assert!(said.is_success, "{}", said.text);
    assert_eq!(ones(), 0, "after an upgrade");
    assert!(dotd.operate(&["backend", "enable", "one"]).is_success);
    assert!(dotd.operate(&["backend", "weight", "two", "4"]).is_success);
    eventually("it gets one of five", || (ones() == 4).then_some(()));
    assert!(dotd.operate(&["upgrade"]).is_success);
    assert_eq!(ones(), 4, "a weight too");
    dotd.signal(Signal::SIGTERM);
    let (_, scratch) = dotd.wait();
    let dotd = Server::launch(&network, &config, scratch, &[]);
    assert_eq!(ones(), 10, "a restart uses them by the config");
    dotd.stop();
}

/// Goal: an operator sees what runs, where it is from, and what a reload would change; what is shown is a config that means the same.
/// Method: a key that the file says, one that it does not, and a file that was changed since.
#[test]
fn the_running_config_is_shown_and_compared() {
    require!(Root);
    let network = Network::new();
    let config = Config::new().xdp("off").set("session", "idle_timeout", "\"9s\"");
    let dotd = Server::start(&network, &config);
    let said = dotd.operate(&["config", "show", "--source"]);
    let line =
        |name: &str| said.text.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
    assert!(
        line("idle_timeout").starts_with("idle_timeout = \"9s\" # ")
            && line("idle_timeout").contains("dotd.toml:")
    );
    assert_eq!(line("queries_burst"), "queries_burst = 1000 # default");
    let shown = dotd.write("shown.toml", dotd.operate(&["config", "show"]).text).display().to_string();
    let said = dotd.operate(&["config", "diff", &shown]);
    assert!(said.is_success && said.has("no key differs"), "{}", said.text);
    dotd.rewrite_config(&config.set("session", "idle_timeout", "\"7s\"").set("server", "workers", "3"));
    let said = dotd.operate(&["config", "diff"]);
    assert!(said.has("session.idle_timeout: \"9s\" -> \"7s\"\n"), "{}", said.text);
    assert!(said.has("-> 3 (needs a restart)\n"), "{}", said.text);
    assert!(dotd.operate(&["reload"]).is_success);
    let said = dotd.operate(&["config", "diff"]);
    assert!(said.has("needs a restart") && !said.has("idle_timeout"), "{}", said.text);
    dotd.stop();
}
