//! Another program takes dotd's place while clients stay served, or the old one serves on.
//!
//! Before: a dotd that serves. After: `dotd upgrade` has run; no client was refused, whatever its outcome.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    thread,
    time::Duration,
};

use dot_tests::{
    harness::{
        clients::{s_client, tcp, udp},
        config::Config,
        dot::Dot,
        eventually,
        message::{A, Query, framed, www},
        netns::{Network, SERVER_V4},
        offer::Offer,
        process::of_each_thread,
        s_client::save_session,
        scratch::Scratch,
        server::{Server, binary},
    },
    require,
};
use nix::sys::signal::Signal;

/// The ways in which clients ask while dotd is upgraded.
const ASKERS: [fn(&Network) -> bool; 2] = [over_a_new_connection, by_udp];

fn over_a_new_connection(network: &Network) -> bool {
    let Ok(mut client) = Dot::attempt(&network.client, SERVER_V4, &Offer::default()) else { return false };
    is_served(&mut client)
}

fn is_served(client: &mut Dot) -> bool {
    client.try_ask_all(&[www(7)]) && client.receive_octets().is_some_and(|answer| answer.starts_with(&[0, 7]))
}

fn by_udp(network: &Network) -> bool {
    let socket = udp(&network.client, SocketAddr::new(SERVER_V4, 53));
    let mut answer = [0; 512];
    socket.send(&www(8)).is_ok() && socket.recv(&mut answer).is_ok() && answer.starts_with(&[0, 8])
}

/// Asks in every way without a pause while `work` runs; returns the number of answers and of queries.
fn asked_during(network: &Network, work: impl FnOnce()) -> [usize; 2] {
    let (is_over, answered, asked) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for ask in ASKERS {
            let (is_over, answered, asked) = (&is_over, &answered, &asked);
            scope.spawn(move || {
                while !is_over.load(Relaxed) {
                    asked.fetch_add(1, Relaxed);
                    answered.fetch_add(usize::from(ask(network)), Relaxed);
                }
            });
        }
        work();
        is_over.store(true, Relaxed);
    });
    [answered.into_inner(), asked.into_inner()]
}

/// dotd with a cleartext listener too, as user nobody.
fn config() -> Config {
    Config::new().set("server", "user", "\"nobody\"").set("listen", "do53", &format!("[\"{SERVER_V4}:53\"]"))
}

/// Goal: an upgrade loses no query and refuses no connection; the main process, XDP, bans, counters of packets and
/// tickets stay, another engine serves with the current config, and the old one is gone. Method: queries over new
/// connections and by UDP without a pause across three upgrades, by the verb, of another file, and by USR2. Covers:
/// A-438, C-501.
#[test]
fn an_upgrade_loses_no_query() {
    require!(Root, Bpf, Command("openssl"));
    let (network, keep) = (Network::new(), Scratch::new());
    let mut dotd = Server::start(&network, &config());
    let saved = keep.path().join("session.pem").display().to_string();
    save_session(&network.client, SERVER_V4, &saved, &framed(&Query::new(1, "dotd.test", A).octets()));
    assert!(dotd.operate(&["ban", "add", "198.51.100.7", "--for", "1h"]).is_success);
    let (keeper, passed) = (dotd.keeper_pid(), dotd.stats().packets("pass", "syn"));
    let other = keep.write("dotd-next", fs::read(binary()).expect("built"));
    fs::set_permissions(&other, fs::Permissions::from_mode(0o755)).expect("ours");
    dotd.rewrite_config(&config().set("session", "in_flight_max", "3"));
    for (place, binary) in [None, Some(other.display().to_string())].into_iter().enumerate() {
        let engine = dotd.pid();
        let counts = asked_during(&network, || {
            let words = binary.iter().flat_map(|binary| ["--binary", binary]);
            let said = dotd.operate(&["upgrade"].into_iter().chain(words).collect::<Vec<_>>());
            assert!(said.is_success && said.has("upgraded: dotd "), "{}", said.text);
            assert!(!said.has(&format!("process {engine}\n")), "{}", said.text);
        });
        assert_eq!(counts[0], counts[1], "{}", dotd.stderr());
        assert!(counts[0] > 0 && !Path::new(&format!("/proc/{engine}")).exists());
        assert_eq!((dotd.keeper_pid(), dotd.engines()), (keeper, place + 2));
    }
    // By the file, because the name of the link is another one in a chroot.
    let file = |path: &Path| fs::metadata(path).map(|file| (file.dev(), file.ino())).expect("it is there");
    assert_eq!(file(Path::new(&format!("/proc/{}/exe", dotd.pid()))), file(&other));
    let counts = asked_during(&network, || {
        dotd.signal(Signal::SIGUSR2);
        eventually("another engine serves", || (dotd.engines() == 4).then_some(()));
    });
    assert_eq!(counts[0], counts[1], "{}", dotd.stderr());
    assert!(dotd.stats().packets("pass", "syn") > passed);
    assert!(dotd.operate(&["ban", "list"]).has("198.51.100.7"));
    assert!(network.server.ip("link show server").contains("xdp"));
    let said = s_client(&network.client, SERVER_V4, &["-tls1_3", "-sess_in", &saved]);
    assert!(said.has("Reused, TLSv1.3"), "{}", said.text);
    dotd.stop();
    assert!(!network.server.exists("/sys/fs/bpf/dotd"));
}

/// Goal: a client whose handshake takes longer than the old engine's grace is still served by the old engine. Method: a
/// connection that the old engine has accepted is silent for one and a half seconds of its drain; then a handshake and
/// a query. Covers: A-438.
#[test]
fn a_slow_handshake_outlasts_the_upgrade() {
    require!(Root);
    let network = Network::new();
    // On a busy machine the upgrade begins late: the handshake must not have timed out by then.
    let config = config().xdp("off").set("session", "handshake_timeout", "\"60s\"");
    let dotd = Server::start(&network, &config);
    let engine = dotd.pid();
    let connection = tcp(&network.client, SocketAddr::new(SERVER_V4, 853));
    dotd.counts("it is accepted", |stats| stats.counter("connections", "accepted") == 1);
    thread::scope(|scope| {
        let upgrade = scope.spawn(|| dotd.operate(&["upgrade"]));
        eventually("the old engine ends its sessions", || {
            dotd.stderr().contains("another engine serves; this one moves its sessions there").then_some(())
        });
        // The client is slow: that is the subject of the test, and not a synchronisation.
        thread::sleep(Duration::from_millis(1500));
        assert!(Path::new(&format!("/proc/{engine}")).exists(), "{}", dotd.stderr());
        let mut client =
            Dot::over(connection, SERVER_V4, &Offer::default()).expect("the old engine shakes hands");
        assert!(is_served(&mut client), "{}", dotd.stderr());
        drop(client);
        let said = upgrade.join().expect("no panic");
        assert!(said.is_success, "{}", said.text);
    });
    assert_ne!(dotd.pid(), engine);
    dotd.stop();
}

/// Goal: a program or a config that cannot serve changes nothing: the old engine goes on serving, and the verb fails
/// with the reason. Method: a file that is no program, one that is not dotd, one of another user, an absent one; a
/// config with a mistake; a session meanwhile; the exit status says whether a restart helps. Covers: A-439, A-470, A-682.
#[test]
fn what_cannot_serve_takes_no_place() {
    require!(Root);
    let (network, keep) = (Network::new(), Scratch::new());
    let dotd = Server::start(&network, &config().xdp("off"));
    let engine = dotd.pid();
    let mut client = Dot::connect(&network.client, SERVER_V4);
    let write = |name: &str, text: &[u8], mode| {
        let path = keep.write(name, text);
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("ours");
        path.display().to_string()
    };
    let whole = fs::read(binary()).expect("built");
    let cases = [
        ("/bin/true".to_owned(), "it printed no reason; is it a dotd?"),
        ("/bin/false".to_owned(), "could not serve"),
        (keep.path().join("absent").display().to_string(), "No such file"),
        (write("text", b"no program", 0o755), "cannot be run"),
        (write("mode", &whole, 0o644), "it is not an executable file"),
        (write("open", &whole, 0o757), "users other than root can change it"),
    ];
    for (binary, reason) in &cases {
        let said = dotd.operate(&["upgrade", "--binary", binary]);
        assert!(!said.is_success && said.has(reason), "{binary}: {}", said.text);
    }
    let status = |words: &[&str]| {
        let mut ask = Command::new(words[0]);
        ask.args(&words[1..]);
        network.server.output(ask).status.code()
    };
    let (program, socket) = (binary().display().to_string(), dotd.folder().join("run/control.sock"));
    let socket = socket.display().to_string();
    assert_eq!(status(&[&program, "upgrade", "--socket", &socket, "--binary", "/bin/false"]), Some(1));
    // A hand-over of another form.
    let list = write("list", br#"{"form":250}"#, 0o600);
    let trial = r#"exec "$0" run --inherit 7 --trial 7<"$1""#;
    assert_eq!(status(&["sh", "-c", trial, &program, &list]), Some(4));
    let nowhere = keep.path().join("control.sock").display().to_string();
    assert_eq!(status(&[&program, "upgrade", "--socket", &nowhere]), Some(3));
    dotd.rewrite_config_text("[listen]\nport = 1\n");
    let said = dotd.operate(&["upgrade"]);
    assert!(!said.is_success && said.has("dotd.toml:2:"), "{}", said.text);
    assert_eq!((dotd.pid(), dotd.engines()), (engine, 1));
    assert!(is_served(&mut client));
    eventually("the log says why", || {
        dotd.stderr().contains("the upgrade failed, and the old engine").then_some(())
    });
    dotd.stop();
}

/// Goal: if the trial succeeds and the start fails, the old engine goes on serving, and a later upgrade works. Method:
/// no threads are left for the new engine's user, who has no other process; then the new program has no run_dir. Covers: A-439.
#[test]
fn a_start_that_fails_leaves_the_old_engine() {
    require!(Root, Command("prlimit"));
    let network = Network::new();
    let alone = config().set("server", "user", "\"games\"").xdp("off");
    let dotd = Server::start(&network, &alone);
    let threads = of_each_thread(dotd.pid(), "Name:").len();
    dotd.stop();
    // A few for the engine that serves, and too few for a second one.
    let limit = format!("--nproc={}", threads + 3);
    let dotd = Server::launch(&network, &alone, Scratch::new(), &["prlimit", &limit]);
    let engine = dotd.pid();
    let mut client = Dot::connect(&network.client, SERVER_V4);
    let said = dotd.operate(&["upgrade"]);
    assert!(!said.is_success && said.has("the old one continues to serve"), "{}", said.text);
    assert_eq!(dotd.pid(), engine);
    assert!(is_served(&mut client));
    drop(client);
    dotd.stop();

    let mut dotd = Server::start(&network, &config());
    let engine = dotd.pid();
    let mut client = Dot::connect(&network.client, SERVER_V4);
    let (run, away) = (dotd.folder().join("run"), dotd.folder().join("away"));
    fs::rename(&run, &away).expect("ours");
    dotd.signal(Signal::SIGUSR2);
    eventually("the log says why", || dotd.stderr().contains("server.run_dir").then_some(()));
    fs::rename(&away, &run).expect("ours");
    assert_eq!(dotd.pid(), engine);
    assert!(is_served(&mut client));

    let said = dotd.operate(&["upgrade"]);
    assert!(said.is_success, "{} {}", said.text, dotd.stderr());
    assert_eq!(dotd.xdp(), "native on server");
    assert!(over_a_new_connection(&network));
    dotd.stop();
    assert!(!network.server.exists("/sys/fs/bpf/dotd"));
}

/// Goal: only root can make the keeper run a program; the engine's user cannot. Method: the verb as that user, with the
/// usual mode of the keeper's socket, and with one that lets every user connect. Covers: A-470.
#[test]
fn only_root_has_a_program_run() {
    require!(Root, Command("setpriv"));
    let network = Network::new();
    let dotd = Server::start(&network, &config().xdp("off"));
    let door = dotd.folder().join("run/keeper.sock");
    let socket = dotd.folder().join("run/control.sock").display().to_string();
    for open in [false, true] {
        let mode = if open { 0o777 } else { fs::metadata(&door).expect("there").permissions().mode() };
        fs::set_permissions(&door, fs::Permissions::from_mode(mode)).expect("root may");
        let mut ask = Command::new("setpriv");
        ask.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        ask.args([&binary().display().to_string(), "upgrade", "--socket", &socket]);
        let output = network.server.output(ask);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let reason = if open { "only root, or the user that started dotd" } else { "run this as root" };
        assert!(!output.status.success() && said.contains(reason), "{said}");
    }
    assert_eq!(dotd.engines(), 1);
    dotd.stop();
}
