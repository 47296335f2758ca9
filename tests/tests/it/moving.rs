//! Sessions that go on in the next engine when dotd is upgraded.
//!
//! Before: sessions at rest, at work, and in the middle of something. After: `dotd upgrade` has run, none was closed, and each is
//! answered by the next engine; or the next engine takes none, and they have ended in order.

use std::{
    env, fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    thread,
    time::Duration,
};

use dot_tests::{
    harness::{
        clients::tcp,
        config::Config,
        dot::{Dot, End},
        eventually,
        message::{A, Query, framed, www},
        netns::{CLIENT_V4, Network, SERVER_V4},
        offer::Offer,
        scene::{embedded, honest, scripted_with},
        scratch::Scratch,
        scripted::{Act, Received},
        server::{Server, binary},
        stats::Stats,
    },
    require,
};
use nix::sys::signal::Signal;
use serde_json::Value;

/// Of queries that a backend holds: longer than a busy machine takes for a step.
const TIMEOUT: &str = "timeout = \"30s\"";

/// Sessions at rest, and sessions that ask without a pause: as many as a debug build makes in some seconds beside other tests, or as
/// `DOTD_SESSIONS=10000,200` says.
fn sessions() -> (usize, usize) {
    let said = env::var("DOTD_SESSIONS").unwrap_or_else(|_| "250,16".to_owned());
    let (idle, busy) = said.split_once(',').expect("two numbers");
    (idle.parse().expect("a number"), busy.parse().expect("a number"))
}

fn config() -> Config {
    let config = Config::new().xdp("off").set("server", "user", "\"nobody\"");
    config.set("session", "connections_per_prefix_max", "20000").set("session", "idle_timeout", "\"10m\"")
}

/// A script: names that begin with `s` get their answers when the test releases them, others at once.
fn slow(query: &Received) -> Vec<Act> {
    let Some(Act::Send(reply)) = honest(query).pop() else { panic!("it answers") };
    let is_slow = query.octets.get(13) == Some(&b's');
    vec![if is_slow { Act::Hold(reply) } else { Act::Send(reply) }]
}

fn upgrade(dotd: &Server) {
    let before = dotd.pid();
    let said = dotd.operate(&["upgrade"]);
    assert!(said.is_success, "{} {}", said.text, dotd.stderr());
    assert_ne!(dotd.pid(), before);
}

fn tls12() -> Offer {
    Offer { is_tls12: true, ..Offer::default() }
}

/// Whether USR2 waits for a process that is stopped.
fn is_told(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it is there");
    let pending = status.lines().find_map(|line| line.strip_prefix("ShdPnd:")).expect("signals");
    let pending = u64::from_str_radix(pending.trim(), 16).expect("a mask");
    pending & (1 << (Signal::SIGUSR2 as i32 - 1)) != 0
}

/// For how long sessions were not read while they went over.
fn pause(stats: &Stats) -> &Value {
    let rows = stats.0["latency"].as_array().expect("rows");
    rows.iter().find(|row| row["labels"]["stage"] == "moved").unwrap_or(&Value::Null)
}

/// Asks in clear over a connection that stays.
fn ask_in_clear(client: &mut TcpStream) {
    client.write_all(&framed(&www(9))).expect("it is open");
    let mut prefix = [0; 2];
    client.read_exact(&mut prefix).expect("it is open");
    let mut answer = vec![0; usize::from(u16::from_be_bytes(prefix))];
    client.read_exact(&mut answer).expect("it is open");
    assert!(answer.starts_with(&[0, 9]), "{answer:?}");
}

/// Goal: two upgrades, one after the other, close no session and lose no query: each session is answered before, meanwhile and
/// after, in TLS 1.3, in TLS 1.2 and in clear, and keys are changed as before; the ledger is even on both sides. Method: sessions
/// at rest, and others that ask without a pause; rustls's client, which ends at the first record that is not the next one.
/// Covers: A-541, A-681, C-550, C-551, C-552.
#[test]
fn no_session_is_closed_by_an_upgrade() {
    require!(Root);
    let (network, dotd) = embedded(&config().set("listen", "do53", &format!("[\"{SERVER_V4}:53\"]")));
    let connect = |place: usize| {
        let offer = if place.is_multiple_of(10) { tls12() } else { Offer::default() };
        Dot::attempt(&network.client, SERVER_V4, &offer).expect("a session")
    };
    let (idle_max, busy_max) = sessions();
    let mut idle: Vec<Dot> = (0..idle_max).map(connect).collect();
    let mut in_clear = tcp(&network.client, SocketAddr::new(SERVER_V4, 53));
    ask_in_clear(&mut in_clear);
    let busy: Vec<Dot> = (0..busy_max).map(connect).collect();
    let (is_over, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for mut session in busy {
            let (is_over, answered) = (&is_over, &answered);
            scope.spawn(move || {
                while !is_over.load(Relaxed) {
                    assert_eq!(session.exchange(&www(7)).rcode(), 0);
                    answered.fetch_add(1, Relaxed);
                }
            });
        }
        for round in 0..2_u16 {
            upgrade(&dotd);
            let before = answered.load(Relaxed);
            eventually("all of them are asking", || {
                (answered.load(Relaxed) > before + 2 * busy_max).then_some(())
            });
            let all = (idle_max + busy_max + 1) as u64;
            let adopted = all * u64::from(round + 1);
            let stats = dotd.counts("all are there", |stats| {
                stats.counter("connections", "adopted") == adopted
                    && stats.counter("session_ends", "moved") == adopted
            });
            println!("upgrade {round}: {}", pause(&stats));
            assert_eq!(
                (stats.counter("connections", "accepted"), stats.sum("session_ends", "")),
                (all, adopted)
            );
            assert!(stats.counter("queries", "received") >= before as u64, "the counts go on");
            for (place, session) in idle.iter_mut().enumerate() {
                if !place.is_multiple_of(10) && place.is_multiple_of(3) {
                    session.update_keys();
                }
                assert_eq!(session.exchange(&www(round)).rcode(), 0, "{place}");
            }
            ask_in_clear(&mut in_clear);
        }
        is_over.store(true, Relaxed);
    });
    let stats = dotd.counts("nothing is under way", |stats| stats.difference() == [0; 3]);
    assert_eq!(stats.counter("connections_open", "open"), (idle_max + 1) as u64);
    assert_eq!(pause(&stats)["count"], (idle_max + busy_max + 1) as u64);
    drop((idle, in_clear));
    dotd.counts("each has one end", |stats| {
        stats.counter("connections_open", "open") == 0 && stats.difference() == [0; 3]
    });
    dotd.stop();
}

/// Goal: a session is in the middle of something, and goes on: half a message, half a record, a KeyUpdate of which half has come,
/// its first octets not sent yet; queries that the old engine has asked are answered by it, and then the session leaves.
/// Method: the other half after the upgrade; a backend that answers once the next engine is there. Covers: A-541, A-542, C-552.
#[test]
fn what_is_half_done_is_done_by_the_next_engine() {
    require!(Root);
    let (network, backend, dotd) = scripted_with(config(), TIMEOUT, slow);
    let connect = || Dot::connect(&network.client, SERVER_V4);
    let (message, mut of_message) = (framed(&www(1)), connect());
    of_message.send(&message[..9]);
    let mut of_record = connect();
    let record = of_record.seal(&message);
    of_record.send_below_tls(&record[..20]);
    let mut of_update = connect();
    let update = of_update.key_update();
    of_update.send_below_tls(&update[..update.len() - 3]);
    let silent = connect();
    let mut asked = connect();
    asked.ask(&Query::new(3, "slow.dotd.test", A).octets());
    eventually("it waits", || (backend.held() == 1).then_some(()));
    thread::scope(|scope| {
        let upgrade = scope.spawn(|| upgrade(&dotd));
        eventually("the next engine serves", || (dotd.engines() == 2).then_some(()));
        backend.release();
        assert_eq!(asked.receive().rcode(), 0);
        upgrade.join().expect("no panic");
    });
    dotd.counts("all are there", |stats| stats.counter("connections", "adopted") == 5);
    of_message.send(&message[9..]);
    of_record.send_below_tls(&record[20..]);
    of_update.send_below_tls(&update[update.len() - 3..]);
    of_update.ask(&www(1));
    for session in [&mut of_message, &mut of_record, &mut of_update] {
        assert_eq!(session.receive().rcode(), 0);
    }
    for mut session in [of_message, of_record, of_update, silent, asked] {
        assert_eq!(session.exchange(&www(2)).rcode(), 0);
    }
    dotd.counts("nothing is under way", |stats| stats.difference() == [0; 3]);
    dotd.stop();
}

/// Goal: an engine that learns late that another one serves, because it was busy with a reload or its machine was, gives its
/// sessions to it all the same. Method: it is stopped from before the upgrade until seconds after the next engine serves.
/// Covers: A-545.
#[test]
fn an_engine_that_is_late_gives_its_sessions_too() {
    require!(Root);
    let (network, dotd) = embedded(&config());
    let mut session = Dot::connect(&network.client, SERVER_V4);
    dotd.signal_engine(Signal::SIGSTOP as i32);
    thread::scope(|scope| {
        let upgrade = scope.spawn(|| dotd.operate(&["upgrade"]));
        eventually("the old engine is told", || is_told(dotd.pid()).then_some(()));
        // That it is late is the subject of the test, and not a synchronisation.
        thread::sleep(Duration::from_secs(3));
        dotd.signal_engine(Signal::SIGCONT as i32);
        let said = upgrade.join().expect("no panic");
        assert!(said.is_success, "{} {}", said.text, dotd.stderr());
    });
    assert_eq!(session.exchange(&www(1)).rcode(), 0);
    assert_eq!(dotd.stats().counter("connections", "adopted"), 1);
    dotd.stop();
}

/// Goal: a next engine that stands still while sessions move loses none: the old one ends meanwhile, and those on the way are taken when
/// the next one runs again. Method: sessions at rest move first; then the next engine is stopped, and sessions whose answers the backend
/// has held follow. Covers: A-680.
#[test]
fn a_next_engine_that_stands_still_loses_no_session() {
    require!(Root);
    let (network, backend, dotd) = scripted_with(config(), TIMEOUT, slow);
    let connect = || Dot::connect(&network.client, SERVER_V4);
    let (at_rest, mut asked): (Vec<_>, Vec<_>) = (0..6).map(|_| (connect(), connect())).unzip();
    for (number, session) in asked.iter_mut().enumerate() {
        session.ask(&Query::new(3, &format!("s{number}.dotd.test"), A).octets());
    }
    eventually("they wait", || (backend.held() == 6).then_some(()));
    let old = dotd.pid();
    thread::scope(|scope| {
        let upgrade = scope.spawn(|| dotd.operate(&["upgrade"]));
        dotd.counts("those at rest are there", |stats| stats.counter("connections", "adopted") == 6);
        let next = *dotd.pids().last().expect("two of them");
        assert_ne!(next, old);
        dotd.signal_process(Signal::SIGSTOP as i32, next);
        backend.release();
        for session in &mut asked {
            assert_eq!(session.receive().rcode(), 0);
        }
        eventually("the old engine has ended", || {
            (!Path::new(&format!("/proc/{old}")).exists()).then_some(())
        });
        dotd.signal_process(Signal::SIGCONT as i32, next);
        let said = upgrade.join().expect("no panic");
        assert!(said.is_success, "{} {}", said.text, dotd.stderr());
    });
    for mut session in at_rest.into_iter().chain(asked) {
        assert_eq!(session.exchange(&www(2)).rcode(), 0);
    }
    let stats = dotd.counts("all are there", |stats| stats.counter("connections", "adopted") == 12);
    assert_eq!(stats.counter("session_ends", "moved"), 12);
    dotd.stop();
}

/// Goal: a next engine that dies once it serves, and before the old one knows of it, changes nothing: the old one serves on, with
/// its sessions, and a later upgrade works; one that dies later is told to the operator. Method: the old engine is stopped until
/// the next one is killed. Covers: A-548.
#[test]
fn an_engine_whose_successor_dies_serves_on() {
    require!(Root);
    let (network, dotd) = embedded(&config());
    let mut session = Dot::connect(&network.client, SERVER_V4);
    let old = dotd.pid();
    dotd.signal_engine(Signal::SIGSTOP as i32);
    thread::scope(|scope| {
        let upgrade = scope.spawn(|| dotd.operate(&["upgrade"]));
        eventually("the old engine is told", || is_told(old).then_some(()));
        let next = *dotd.pids().last().expect("two of them");
        assert_ne!(next, old);
        dotd.signal_process(Signal::SIGKILL as i32, next);
        let said = upgrade.join().expect("no panic");
        assert!(
            !said.is_success && said.has("before it had taken over, and the old one continues to serve"),
            "{}",
            said.text
        );
    });
    dotd.signal_engine(Signal::SIGCONT as i32);
    assert_eq!(session.exchange(&www(1)).rcode(), 0);
    assert_eq!(dotd.pids(), [old]);
    upgrade(&dotd);
    assert_eq!(session.exchange(&www(2)).rcode(), 0);
    assert_eq!(dotd.stats().counter("connections", "adopted"), 1);
    dotd.stop();
}

/// Goal: a program that understands another form, and one that is told to take none, serve all the same: the old engine ends its
/// sessions in order, as ever. Method: the built program with another number in its form; then the key. Covers: A-543, C-553.
#[test]
fn where_sessions_cannot_go_they_end_in_order() {
    require!(Root);
    let (network, keep) = (Network::new(), Scratch::new());
    let dotd = Server::start(&network, &config());
    let form = b"dotd sessions, form 2";
    let mut program = fs::read(binary()).expect("built");
    let places: Vec<usize> =
        program.windows(form.len()).enumerate().filter(|(_, part)| part == form).map(|(at, _)| at).collect();
    assert!(!places.is_empty(), "the form is in the program");
    places.iter().for_each(|at| program[at + form.len() - 1] = b'3');
    let other = keep.write("dotd-other", program);
    fs::set_permissions(&other, fs::Permissions::from_mode(0o755)).expect("ours");
    let mut session = Dot::connect(&network.client, SERVER_V4);
    let said = dotd.operate(&["upgrade", "--binary", &other.display().to_string()]);
    assert!(said.is_success, "{} {}", said.text, dotd.stderr());
    assert_eq!(session.end(), End::CloseNotify);
    eventually("the log says why", || {
        dotd.stderr().contains(r#"they end here in order: it uses "dotd sessions, form 3""#).then_some(())
    });
    let mut session = Dot::connect(&network.client, SERVER_V4);
    dotd.rewrite_config(&config().set("session", "move_at_upgrade", "false"));
    upgrade(&dotd);
    assert_eq!(session.end(), End::CloseNotify);
    assert_eq!(dotd.stats().counter("connections", "adopted"), 0);
    assert!(Dot::connect(&network.client, SERVER_V4).exchange(&www(1)).rcode() == 0);
    dotd.stop();
}

/// Goal: limits go on with a session, and the next engine's config is its: queries of a session are counted on, and a client that
/// may not ask any more is closed. Method: two of three queries before the upgrade and one behind it; a deny list for the next
/// one. Covers: A-544.
#[test]
fn limits_and_lists_hold_for_sessions_that_go_on() {
    require!(Root);
    let config = config().set("session", "queries_max", "3");
    let (network, dotd) = embedded(&config);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    (0..2).for_each(|id| drop(session.exchange(&www(id))));
    upgrade(&dotd);
    assert_eq!(session.exchange(&www(2)).rcode(), 0);
    assert_eq!(session.end(), End::CloseNotify);
    dotd.counts("it has had its queries", |stats| stats.counter("session_ends", "queries") == 1);
    let mut session = Dot::connect(&network.client, SERVER_V4);
    let denies =
        config.set("access", "deny", &format!("[\"{CLIENT_V4}/32\"]")).set("access", "denied", "\"close\"");
    dotd.rewrite_config(&denies);
    upgrade(&dotd);
    assert_eq!(session.end(), End::CloseNotify);
    let stats = dotd.counts("it may not ask", |stats| {
        stats.counter("session_ends", "denied") == 1 && stats.difference() == [0; 3]
    });
    assert_eq!(stats.counter("connections", "adopted"), 2);
    dotd.stop();
}
