//! Faults of the machine: no descriptors, no memory, no ports, a clock that jumps, a log without a reader.
//!
//! Before: a dotd that serves. After: clients are still served, failures are counted, and everything works again when
//! the fault is over. Only the clock and limits of one process are changed, never those of the machine.

use std::{
    collections::HashSet,
    fs,
    io::Write,
    net::{TcpListener, UdpSocket},
    process::Command,
};

use dot_tests::{
    harness::{
        clients::{DOT_PORT, s_client, tcp},
        config::Config,
        dot::Dot,
        eventually,
        message::{A, NETWORK_ERROR, OPTION_EDE, Opt, Query, SERVFAIL, framed, host},
        netns::{Network, SERVER_V4},
        s_client::save_session,
        scene::{HONEST, honest, scripted, scripted_with},
        scratch::Scratch,
        scripted::Scripted,
        server::Server,
        stats::Stats,
    },
    require,
};
use nix::{
    sys::{signal::Signal, stat::Mode},
    unistd::mkfifo,
};

fn assert_honest(session: &mut Dot, id: u16) {
    assert_eq!(session.exchange(&host(id)).rdata(A), [HONEST], "query {id}");
}

/// Goal: without a descriptor the session that is idle longest gives way to a new client, as at the connection cap;
/// clients that ask are served all the time, and the log reports it once. Method: the soft RLIMIT_NOFILE of the running
/// process, a few above what it has open; idle sessions that would stay for an hour, then many more clients. Covers:
///
#[test]
fn without_descriptors_the_idle_give_way() {
    require!(Root);
    let config =
        Config::new().xdp("off").set("server", "workers", "1").set("session", "idle_timeout", "\"1h\"");
    let (network, _backend, dotd) = scripted(config, honest);
    let mut innocent = Dot::connect(&network.client, SERVER_V4);
    assert_honest(&mut innocent, 0);
    let open = fs::read_dir(format!("/proc/{}/fd", dotd.pid())).expect("it runs").count();
    let limit = |files: &str| {
        let mut command = Command::new("prlimit");
        command.args(["--pid", &dotd.pid().to_string(), &format!("--nofile={files}:")]);
        assert!(command.status().expect("of util-linux").success());
    };
    limit(&(open + 4).to_string());
    let mut others = Vec::new();
    for id in 1..=16 {
        let mut other = Dot::connect(&network.client, SERVER_V4);
        assert_honest(&mut other, id);
        assert_honest(&mut innocent, id);
        others.push(other);
    }
    limit("4096");
    let stats = dotd.counts("it can be asked", |stats| stats.counter("session_ends", "evicted") >= 8);
    assert!(stats.counter("connections", "accept_failed") > 0, "no accept failed");
    let said = dotd.stderr().matches("no connection can be accepted").count();
    assert_eq!(said, 1, "{}", dotd.stderr());
    assert_eq!(stats.difference(), [0; 3]);
}

/// Goal: a query that the kernel has no memory to send is counted and sent again, and its client gets an answer.
/// Method: strace makes the first three `sendmmsg` fail with ENOBUFS, as a kernel without buffers does; one backend.
///
#[test]
fn what_finds_no_buffers_is_sent_again() {
    require!(Root, Command("strace"));
    let network = Network::new();
    let backend = Scripted::start(&network, honest);
    let config = Config::new().xdp("off").set("server", "workers", "1");
    let config = config.backend_with(backend.address, "timeout = \"4s\"");
    let words = "strace -D -f -qq -o /dev/null -e trace=sendmmsg -e inject=sendmmsg:error=ENOBUFS:when=1..3";
    let wrapper: Vec<&str> = words.split(' ').collect();
    let dotd = Server::launch(&network, &config, Scratch::new(), &wrapper);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    for id in 0..5 {
        assert_honest(&mut session, id);
    }
    let stats = dotd.stats();
    let counts = ["send_failed", "retransmitted", "timeout"].map(|label| stats.counter("backend", label));
    // It is sent again three times, the third time with success.
    assert_eq!((counts, stats.difference()), ([3, 1, 0], [0; 3]));
}

/// Goal: a full send buffer keeps queries waiting and loses none. Method: loopback, where the backend is, passes some
/// kilobits a second, so that sockets fill; then it is fast again. Most of what was sent is lost meanwhile. Covers:
///
#[test]
fn what_finds_a_full_socket_waits() {
    require!(Root, Command("tc"));
    const QUERIES: u16 = 6000;
    let config = Config::new().xdp("off").set("server", "workers", "1");
    let config = config.set("session", "in_flight_max", "10000");
    let (network, _backend, dotd) = scripted_with(config, "timeout = \"20s\"", honest);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    assert_honest(&mut session, 0);
    let tc = |words: &str| {
        let mut command = Command::new("tc");
        command.args(words.split(' '));
        let said = network.server.output(command);
        assert!(said.status.success(), "tc {words}: {said:?}");
    };
    tc("qdisc add dev lo root tbf rate 8kbit burst 2000 limit 100000000");
    let queries: Vec<_> = (0..QUERIES).map(host).collect();
    queries.chunks(500).for_each(|some| session.ask_all(some));
    eventually("a socket is full", || {
        let sockets = network.server.run(|| fs::read_to_string("/proc/thread-self/net/udp")).expect("procfs");
        let waiting = sockets.lines().filter_map(|line| line.split_whitespace().nth(4)?.split(':').next());
        let longest = waiting.filter_map(|octets| u64::from_str_radix(octets, 16).ok()).max();
        longest.filter(|octets| *octets > 200_000)
    });
    tc("qdisc del dev lo root");
    for _ in 0..QUERIES {
        let answer = session.receive();
        assert_eq!((answer.rcode(), answer.rdata(A)), (0, vec![&HONEST[..]]), "{answer:?}");
    }
    assert_eq!(dotd.stats().difference(), [0; 3]);
}

/// Goal: without a free local port a backend counts as down: its queries fail at once, `status` says why, and it is up
/// again when there are ports. Method: a range of 64 ports, all of them in use by the test; over UDP and TCP. Covers:
///
#[test]
fn without_ports_a_backend_is_not_there() {
    require!(Root);
    for transport in ["udp", "tcp"] {
        let network = Network::new();
        let backend = Scripted::start(&network, honest);
        let held = network.server.run(|| {
            fs::write("/proc/sys/net/ipv4/ip_local_port_range", "61000 61063")
                .expect("of this namespace alone");
            let udp = (61000..61064).map(|port| UdpSocket::bind(("0.0.0.0", port)).expect("free"));
            let tcp = (61000..61064).map(|port| TcpListener::bind(("0.0.0.0", port)).expect("free"));
            (udp.collect::<Vec<_>>(), tcp.collect::<Vec<_>>())
        });
        let keys = format!("transport = \"{transport}\"\ntimeout = \"30s\"");
        let config = Config::new().xdp("off").set("balance", "health_interval", "\"200ms\"");
        let dotd = Server::start(&network, &config.backend_with(backend.address, &keys));
        let mut session = Dot::connect(&network.client, SERVER_V4);
        eventually("the backend is down", || (dotd.backend_states() == ["down"]).then_some(()));
        let why = dotd.backend_reason(0).expect("status says why");
        assert!(why.contains("os error"), "{why}");
        for id in 0..10 {
            let answer = session.exchange(&Query::new(id, "www.dotd.test", A).opt(Opt::default()).octets());
            let ede = answer.option(OPTION_EDE).map(|ede| ede[..2].to_vec());
            assert_eq!((answer.rcode(), ede.as_deref()), (SERVFAIL, Some(&NETWORK_ERROR[..])), "{transport}");
        }
        drop(held);
        eventually("it is there again", || (session.exchange(&host(1)).rcode() == 0).then_some(()));
        eventually("status says so", || (dotd.backend_states() == ["up"]).then_some(()));
        assert_eq!(dotd.stats().difference(), [0; 3], "{transport}");
    }
}

/// Goal: a clock that jumps a year ahead, and then a year behind, ends no session, loses no query, and frees no place
/// of a client; new clients and old tickets are accepted, and `status` uses the new time. Method: libfaketime under one
/// dotd, its time in a file; the monotonic clock is the true one.
#[test]
fn a_clock_that_jumps_ends_nothing() {
    require!(Root, Command("faketime"), Command("openssl"));
    let scratch = Scratch::new();
    let file = scratch.write("time", "+0d");
    let found =
        Command::new("faketime").args(["-f", "+0d", "printenv", "LD_PRELOAD"]).output().expect("it is there");
    let library = String::from_utf8_lossy(&found.stdout).trim().to_owned();
    let words = [
        format!("LD_PRELOAD={library}"),
        format!("FAKETIME_TIMESTAMP_FILE={}", file.display()),
        "FAKETIME_NO_CACHE=1".to_owned(),
        "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
    ];
    let mut wrapper = vec!["env", "-u", "FAKETIME"];
    wrapper.extend(words.iter().map(String::as_str));
    let network = Network::new();
    let backend = Scripted::start(&network, honest);
    // libfaketime reads its variables and its file for as long as the engine runs.
    let config = Config::new().xdp("off").set("server", "sandbox", "\"off\"");
    let config = config.set("session", "idle_timeout", "\"5s\"").backend(backend.address);
    let mut dotd = Server::launch(&network, &config, scratch, &wrapper);
    let saved = dotd.folder().join("saved").display().to_string();
    save_session(&network.client, SERVER_V4, &saved, &framed(&host(1)));
    let started = dotd.counts("it has left", |stats| stats.counter("connections_open", "open") == 0);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    for jump in ["+400d", "-400d", "+4000d", "+0d"] {
        dotd.write("time", jump);
        for id in 0..20 {
            assert_honest(&mut session, id);
        }
        assert_honest(&mut Dot::connect(&network.client, SERVER_V4), 1);
        let reloads = |stats: &Stats| stats.sum("control", "reloads_");
        let before = reloads(&dotd.stats());
        dotd.signal(Signal::SIGHUP);
        dotd.counts("a reload is done", |stats| reloads(stats) > before);
        assert_honest(&mut session, 2);
    }
    let years =
        dotd.stderr().lines().filter_map(|line| line.get(..4)?.parse::<u32>().ok()).collect::<HashSet<_>>();
    assert!(years.len() > 2, "the clock did not jump: {}", dotd.stderr());
    let said = s_client(&network.client, SERVER_V4, &["-tls1_3", "-sess_in", &saved]);
    assert!(said.has("Reused, TLSv1.3"), "{}", said.text);
    let stats = dotd.counts("others have left", |stats| stats.counter("connections_open", "open") == 1);
    let ends = |stats: &Stats| [stats.sum("session_ends", ""), stats.counter("session_ends", "client")];
    let (before, after) = (ends(&started), ends(&stats));
    assert_eq!([after[0] - before[0], after[1] - before[1]], [5, 5], "{stats:?}");
    assert_eq!(stats.difference(), [0; 3]);
    dotd.stop();
}

/// Goal: a log without a reader blocks nothing: lines are dropped and counted, clients are served, and TERM ends dotd.
/// Method: standard error is a full pipe; at level debug each failed handshake is a line.
#[test]
fn a_log_that_nobody_reads_is_no_brake() {
    require!(Root);
    let scratch = Scratch::new();
    let fifo = scratch.path().join("stuck");
    mkfifo(&fifo, Mode::S_IRUSR | Mode::S_IWUSR).expect("our own folder");
    let script = format!("exec \"$0\" \"$@\" 2<> {}", fifo.display());
    let network = Network::new();
    let backend = Scripted::start(&network, honest);
    let config = Config::new().xdp("off").set("log", "level", "\"debug\"").backend(backend.address);
    let dotd = Server::launch(&network, &config, scratch, &["sh", "-c", &script]);
    let mut innocent = Dot::connect(&network.client, SERVER_V4);
    eventually("lines are lost", || {
        for _ in 0..1000 {
            let _ = tcp(&network.client, (SERVER_V4, DOT_PORT).into()).write_all(b"GET / HTTP/1.1\r\n\r\n");
        }
        assert_honest(&mut innocent, 1);
        (dotd.stats().counter("control", "log_lines_lost") > 0).then_some(())
    });
    for id in 0..100 {
        assert_honest(&mut innocent, id);
    }
    assert_eq!(dotd.stats().difference(), [0; 3]);
    let ended = dotd.stop();
    assert_eq!(ended.stderr, "", "the log was read");
}
