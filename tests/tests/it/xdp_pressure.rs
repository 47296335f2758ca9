//! When no worker has a place for a connection, the kernel half drops its SYN; when a worker has one, it gets the
//! connection.
//!
//! Before: workers report their state in their entries. After: SYNs are dropped and counted, established connections
//! live, and the next SYN is admitted when there is room.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    time::Duration,
};

use dot_common::{
    settings::{Gate, Over, Settings},
    verdict::{Action, Reason, Verdict},
    worker_status::ENDED,
};
use dot_tests::{
    frames::{ACK, Build, CLEARTEXT_QUERY, CLIENT_HELLO, FIN, PSH, SYN},
    harness::{
        clients::{DOT_PORT, tcp},
        config::Config,
        dot::Dot,
        eventually,
        message::{A, Query, reply_to},
        netns::SERVER_V4,
        raw_hello::{greased_hello, handshake_record},
        scene::{HONEST, embedded, scripted_with},
        scripted::{Act, Received},
        uninterrupted,
    },
    require,
    xdp_lab::{Lab, XDP_DROP, XDP_PASS, settings},
};
use nix::sys::{
    resource::{Resource, getrlimit, setrlimit},
    signal::Signal,
};

/// Goal: where every worker is closed a SYN to DNS over TLS is dropped, and nothing else is: no established connection,
/// no client on the allow list, no other service; a limit that only counts drops nothing and opens no gate; when the
/// time is over, or workers drain, SYNs pass. Method: frames, with the entry of the only worker in each state. Covers:
///
#[test]
fn pressure_drops_new_connections_alone() {
    let dropping = settings(Gate::Drop);
    let Some(mut lab) = Lab::open("pressure_drops_new_connections_alone", &dropping) else { return };
    let pressure = Verdict::drop(Reason::Pressure);
    let syn = |payload: &[u8]| Build::tcp(853, SYN, 1, payload);
    let judge = |lab: &mut Lab, build: Build| {
        let outcome = lab.judge(&build.frame().octets);
        (outcome.action, outcome.verdict.expect("a packet of ours"))
    };
    let passes = |reason| (XDP_PASS, Verdict::pass(reason));
    assert_eq!(judge(&mut lab, syn(&[])), passes(Reason::Syn));

    lab.close_workers(u64::MAX - 1);
    for build in [syn(&[]), syn(&[]).v6(), syn(&CLIENT_HELLO), Build::tcp(8853, SYN, 1, &[])] {
        assert_eq!(judge(&mut lab, build), (XDP_DROP, pressure));
    }
    for (build, reason) in [
        (Build::tcp(853, ACK, 1, &[]), Reason::Control),
        (Build::tcp(853, FIN | ACK, 1, &[]), Reason::Control),
        (Build::tcp(853, PSH | ACK, 1, &CLIENT_HELLO), Reason::UnknownFlow),
        (Build::tcp(53, SYN, 1, &[]), Reason::Syn),
    ] {
        assert_eq!(judge(&mut lab, build), passes(reason));
    }
    let client: IpAddr = "198.51.100.7".parse().unwrap();
    lab.allow(client, 32);
    lab.set(&Settings { allow: 1, ..dropping });
    assert_eq!(judge(&mut lab, syn(&[]).client(client)), passes(Reason::Syn));
    assert_eq!(judge(&mut lab, syn(&[])), (XDP_DROP, pressure), "not on the list");

    lab.set(&Settings { over: Over::Count as u8, ..dropping });
    let counted = Verdict { action: Action::WouldDrop, reason: Reason::Pressure };
    assert_eq!(judge(&mut lab, syn(&[])), (XDP_PASS, counted));
    let refused = Verdict::drop(Reason::CleartextOnDot);
    assert_eq!(judge(&mut lab, syn(&CLEARTEXT_QUERY)), (XDP_DROP, refused));

    lab.set(&dropping);
    for over in [1, ENDED, 0] {
        lab.close_workers(over);
        assert_eq!(judge(&mut lab, syn(&[])), passes(Reason::Syn), "{over}");
    }
}

/// Goal: while DNS over TLS is switched off, XDP drops a SYN for it, from every client, and nothing else. Method: frames, with
/// the switch in both states.
#[test]
fn a_switch_drops_new_connections_alone() {
    let on = settings(Gate::Drop);
    let Some(mut lab) = Lab::open("a_switch_drops_new_connections_alone", &on) else { return };
    let judge = |lab: &mut Lab, build: Build| {
        let outcome = lab.judge(&build.frame().octets);
        (outcome.action, outcome.verdict.expect("a packet of ours"))
    };
    let passes = |reason| (XDP_PASS, Verdict::pass(reason));
    let syn = || Build::tcp(853, SYN, 1, &[]);
    let client: IpAddr = "198.51.100.7".parse().unwrap();
    lab.allow(client, 32);
    lab.set(&Settings { allow: 1, dot_is_off: 1, ..on });
    for build in [syn(), syn().v6(), syn().client(client), Build::tcp(853, SYN, 1, &CLIENT_HELLO)] {
        assert_eq!(judge(&mut lab, build), (XDP_DROP, Verdict::drop(Reason::DotOff)));
    }
    for (build, reason) in [
        (Build::tcp(853, ACK, 1, &[]), Reason::Control),
        (Build::tcp(853, PSH | ACK, 1, &CLIENT_HELLO), Reason::UnknownFlow),
        (Build::tcp(53, SYN, 1, &[]), Reason::Syn),
    ] {
        assert_eq!(judge(&mut lab, build), passes(reason));
    }
    lab.set(&on);
    assert_eq!(judge(&mut lab, syn()), passes(Reason::Syn));
}

/// How long a client waits for an answer that comes at once or not at all.
const PATIENCE: Duration = Duration::from_millis(500);

/// Connects twice: the first connection is refused by the worker, which has no place; returns whether the second one is
/// then dropped before a socket exists.
fn is_shed() -> bool {
    let server = SocketAddr::new(SERVER_V4, DOT_PORT);
    let first = TcpStream::connect_timeout(&server, PATIENCE);
    // Its end shows that the worker has noticed that it has no place.
    let _ = first.map(|mut stream| {
        stream.set_read_timeout(Some(PATIENCE)).and_then(|()| uninterrupted(|| stream.read(&mut [0; 16])))
    });
    TcpStream::connect_timeout(&server, PATIENCE).is_err()
}

/// Goal: when every place is taken and no session is idle, XDP drops and counts a SYN; connected clients are answered;
/// when a place is free again, the next SYN is admitted at once. Method: two places, held by clients that wait for an
/// answer; further clients; then one of the two leaves.
#[test]
fn a_full_house_sheds_before_a_socket_exists() {
    require!(Root, Bpf);
    let hold = |query: &Received| vec![Act::Hold(reply_to(&query.octets, A, &[HONEST.to_vec()]))];
    let config = Config::new().set("session", "connections_max", "2");
    let (network, backend, dotd) = scripted_with(config, "timeout = \"30s\"", hold);
    assert_ne!(dotd.xdp(), "off");
    let query = Query::new(1, "www.dotd.test", A).octets();
    let [mut stays, leaves] = [(); 2].map(|()| {
        let mut session = Dot::connect(&network.client, SERVER_V4);
        session.ask(&query);
        session
    });
    eventually("both wait at the backend", || (backend.held() == 2).then_some(()));
    assert_eq!(dotd.stats().packets("drop", "pressure"), 0, "a full server alone sheds no client");
    let open = eventually("a SYN is shed", || {
        let before = dotd.stats().packets("drop", "pressure");
        let is_shed = network.client.run(is_shed);
        let stats = dotd.stats();
        (is_shed && stats.packets("drop", "pressure") > before)
            .then(|| stats.counter("connections_open", "open"))
    });
    assert_eq!(open, 2, "what was shed is no connection");

    leaves.abort();
    dotd.counts("a place is free", |stats| stats.counter("connections_open", "open") == 1);
    let shed = dotd.stats().packets("drop", "pressure");
    let _new = Dot::connect(&network.client, SERVER_V4);
    assert_eq!(dotd.stats().packets("drop", "pressure"), shed, "there was room");
    backend.release();
    assert_eq!(stays.receive().rdata(A), [HONEST]);
    let shown = dotd.operate(&["xdp", "show"]);
    assert!(shown.has("worker       0: ") && shown.has("worker       1: "), "{}", shown.text);
    assert_eq!(dotd.stats().difference(), [0; 3]);
}

/// Clients whose hellos come at once: three times as many handshakes as may wait.
const HELLOS: usize = 3_072;

/// Goal: when more than 1,024 handshakes wait at the only worker, XDP drops SYNs although there are places; admitted
/// clients complete their handshakes, and afterwards every client is admitted. Method: hellos collect while dotd is
/// stopped; further clients once it goes on.
#[test]
fn handshakes_beyond_the_mark_shed_new_connections() {
    require!(Root, Bpf);
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("Linux says it");
    setrlimit(Resource::RLIMIT_NOFILE, most, most).expect("up to the most there may be");
    let config = Config::new().set("server", "workers", "1").set("session", "handshake_timeout", "\"1m\"");
    let (network, mut dotd) = embedded(&config.set("session", "connections_per_prefix_max", "8000"));
    let hello = handshake_record(&greased_hello());
    dotd.signal(Signal::SIGSTOP);
    let mut clients = Vec::new();
    for _ in 0..HELLOS {
        let mut client = tcp(&network.client, SocketAddr::new(SERVER_V4, DOT_PORT));
        client.write_all(&hello).expect("the kernel takes it");
        clients.push(client);
    }
    dotd.signal(Signal::SIGCONT);
    let mut late = Vec::new();
    let stats = eventually("a SYN is shed", || {
        let server = SocketAddr::new(SERVER_V4, DOT_PORT);
        late.extend(network.client.run(move || TcpStream::connect_timeout(&server, PATIENCE)));
        let stats = dotd.stats();
        (stats.packets("drop", "pressure") > 0).then_some(stats)
    });
    assert_eq!((stats.sum("connections", "refused"), late.is_empty()), (0, false), "there were places");
    for client in &mut clients {
        assert_eq!(uninterrupted(|| client.read(&mut [0; 1])).expect("the server's flight"), 1);
    }
    drop((clients, late));
    let _new = Dot::connect(&network.client, SERVER_V4);
    assert_eq!(dotd.status()["xdp"]["workers"][0]["backlog"], 0);
    dotd.stop();
}

/// Goal: a worker that has its share of all connections gets no further ones while another worker has fewer. Method:
/// six places, six clients one after another from one CPU, two workers.
#[test]
fn connections_go_past_a_worker_that_has_its_share() {
    require!(Root, Bpf);
    let (network, dotd) = embedded(&Config::new().set("session", "connections_max", "6"));
    let status = dotd.status();
    if status["xdp"]["steering"] != "reuseport-ebpf" {
        return println!(
            "SKIPPED connections_go_past_a_worker_that_has_its_share: {}",
            status["xdp"]["steering"]
        );
    }
    let open = || -> Vec<u64> {
        let status = dotd.status();
        let rows = status["xdp"]["workers"].as_array().expect("a line for each worker").clone();
        rows.iter().filter_map(|row| row["open"].as_u64()).collect()
    };
    let mut sessions = Vec::new();
    for count in 1..=6 {
        sessions.push(Dot::connect(&network.client, SERVER_V4));
        eventually("the lines say so", || (open().iter().sum::<u64>() == count).then_some(()));
    }
    assert_eq!(open(), [3, 3]);
    drop(sessions);
    eventually("the lines say so", || (open() == [0, 0]).then_some(()));
}
