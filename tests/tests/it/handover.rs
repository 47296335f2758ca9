//! One engine after another: after a crash the listeners stay, and the next engine serves.
//!
//! Before: a dotd that serves. After: its engine was killed, and no client was refused.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    os::unix::net::{UnixDatagram, UnixStream},
    time::{Duration, Instant},
};

use dot_tests::{
    harness::{
        clients::{is_answered_over_tls, kdig, s_client},
        config::Config,
        dot::Dot,
        eventually,
        message::{A, Query, framed},
        netns::{Network, SERVER_V4},
        s_client::save_session,
        scratch::Scratch,
        server::Server,
    },
    require,
};

/// Kills the engine and waits for the next one.
fn crash(dotd: &Server) {
    let before = dotd.engines();
    dotd.signal_engine(9);
    eventually("another engine serves", || (dotd.engines() > before).then_some(()));
}

/// Goal: a crash of the engine refuses no connection and keeps XDP attached, with bans and counters; the next engine
/// serves by the same certificate. Method: KILL to the engine, new connections all the time until another engine is
/// ready; bans and counters of packets before and after; a query; an orderly end.
#[test]
fn a_crash_refuses_no_connection() {
    require!(Root, Bpf, Command("kdig"));
    let network = Network::new();
    let dotd = Server::start(&network, &Config::new().set("server", "user", "\"nobody\""));
    let (keeper, killed, pin) = (dotd.keeper_pid(), dotd.pid(), dotd.pin());
    assert!(dotd.operate(&["ban", "add", "198.51.100.7", "--for", "1h"]).is_success);
    let said = kdig(&network.client, SERVER_V4, "+tls dotd.test A");
    assert!(is_answered_over_tls(&said), "{}", said.text);
    let passed = dotd.stats().packets("pass", "syn");
    assert!(passed > 0);
    dotd.signal_engine(9);
    eventually("another engine serves", || {
        network.client.run(|| TcpStream::connect((SERVER_V4, 853)).map(drop)).expect("refused");
        assert!(network.server.ip("link show server").contains("xdp"));
        (dotd.engines() == 2).then_some(())
    });
    assert_eq!((dotd.keeper_pid(), dotd.pin()), (keeper, pin));
    assert_ne!(dotd.pid(), killed);
    assert!(dotd.stats().packets("pass", "syn") >= passed);
    let bans = dotd.operate(&["ban", "list"]);
    assert!(bans.has("198.51.100.7"), "{}", bans.text);
    let said = kdig(&network.client, SERVER_V4, "+tls dotd.test A");
    assert!(is_answered_over_tls(&said), "{}", said.text);
    assert!(dotd.stderr().contains("dotd's engine ended by SIGKILL; another one takes its place"));
    dotd.stop();
    assert!(!network.server.exists("/sys/fs/bpf/dotd"));
}

/// Goal: tickets resume sessions after a crash, and those whose keys an operator has ended do not; the next engine uses
/// the config that was in force, also if the file has changed since. Method: OpenSSL's client with a saved session; a
/// broken config; KILL. Covers: A-437, C-500.
#[test]
fn ended_tickets_stay_ended_after_a_crash() {
    require!(Root, Command("openssl"));
    let (network, keep) = (Network::new(), Scratch::new());
    let saved = keep.path().join("session.pem").display().to_string();
    let resumes = || s_client(&network.client, SERVER_V4, &["-tls1_3", "-sess_in", &saved]);
    let query = framed(&Query::new(1, "dotd.test", A).octets());
    let dotd = Server::start(&network, &Config::new().xdp("off").set("server", "user", "\"nobody\""));
    dotd.rewrite_config_text("no config");
    save_session(&network.client, SERVER_V4, &saved, &query);
    crash(&dotd);
    let said = resumes();
    assert!(said.has("Reused, TLSv1.3"), "{}", said.text);
    assert!(dotd.operate(&["tickets", "rotate"]).is_success);
    crash(&dotd);
    assert!(resumes().has("Reused, TLSv1.3"), "the last key opens for one more rotation");
    assert!(dotd.operate(&["tickets", "rotate", "--end-old"]).is_success);
    crash(&dotd);
    let said = resumes();
    assert!(said.has("New, TLSv1.3"), "{}", said.text);
    dotd.stop();
}

/// Goal: an engine that crashes again and again is started a fixed number of times; then dotd ends by the same signal,
/// and the next start takes over what is left. Method: KILL to each engine.
#[test]
fn crashes_without_end_end_dotd() {
    require!(Root);
    let network = Network::new();
    let dotd = Server::start(&network, &Config::new().xdp("off"));
    dotd.exhaust(9);
    let (ended, _scratch) = dotd.wait();
    assert_eq!((ended.code, ended.signal), (None, Some(9)), "{ended:?}");
}

/// Goal: a worker that takes no more turns does not go on refusing its clients: systemd's watchdog hears of every worker, with a line
/// for `systemctl status`, and where one is stuck another engine serves. Method: a socket in systemd's place; a worker that a
/// hook of debug builds stops; what is said until another engine is ready.
#[test]
fn a_stuck_worker_is_replaced() {
    require!(Root);
    let (network, scratch) = (Network::new(), Scratch::new());
    let path = scratch.path().join("notify");
    let systemd = UnixDatagram::bind(&path).expect("our own folder");
    systemd.set_read_timeout(Some(Duration::from_secs(1))).expect("a time");
    let hear = |what: &str, is_it: fn(&str) -> bool| {
        let until = Instant::now() + Duration::from_secs(120);
        while Instant::now() < until {
            let mut text = [0; 1024];
            let Ok(octets) = systemd.recv(&mut text) else { continue };
            let text = String::from_utf8_lossy(&text[..octets]).into_owned();
            if is_it(&text) {
                return text;
            }
        }
        panic!("systemd does not hear {what}");
    };
    let variable = format!("NOTIFY_SOCKET={}", path.display());
    let dotd = Server::launch(&network, &Config::new().xdp("off"), scratch, &["env", &variable]);
    let alive = hear("that it is alive", |text| text.contains("WATCHDOG=1"));
    assert!(alive.contains("STATUS=0 connections, 1 of 1 backends, XDP off"), "{alive}");
    let mut socket = UnixStream::connect(dotd.folder().join("run/control.sock")).expect("it listens");
    let request = "POST /stick HTTP/1.1\r\nHost: dotd\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    socket.write_all(request.as_bytes()).expect("it reads");
    let _ = socket.read_to_string(&mut String::new());
    hear("that another engine serves", |text| text.contains("READY=1"));
    assert!(dotd.stderr().contains("a worker does not answer"), "{}", dotd.stderr());
    let answer = Dot::connect(&network.client, SERVER_V4).exchange(&Query::new(1, "dotd.test", A).octets());
    assert_eq!(answer.id, 1);
    dotd.stop();
}
