//! dotd with the capabilities of packaging/dotd.service and no others, in folders as packaging/dotd.tmpfiles makes them.
//!
//! Before: setpriv has taken every other capability away; the folders are another user's, and closed to root without capabilities.
//! After: dotd starts, reloads, hands over and ends as with all of them, and says what it may not read.

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt, PermissionsExt, chown, lchown},
        net::UnixListener,
    },
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use dot_tests::{
    harness::{
        clients::{is_answered_over_tls, kdig},
        config::Config,
        eventually,
        netns::{Network, SERVER_V4},
        pairs::Pair,
        process::of_each_thread,
        scratch::Scratch,
        server::{Server, binary},
    },
    require,
};
use nix::sys::signal::Signal;
use rcgen::PKCS_ECDSA_P256_SHA256;

/// `server.user`, and another user whose files dotd may not read.
const NOBODY: u32 = 65_534;
const THIRD: u32 = 65_533;

/// Runs a program with the capabilities of the packaged unit, and with `more`.
pub(crate) fn wrapper(more: &str) -> [String; 4] {
    let unit = include_str!("../../../packaging/dotd.service");
    let bounding = unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet="));
    let names =
        bounding.expect("the unit has it").split(' ').map(|name| name.replace("CAP_", "+").to_lowercase());
    let set: Vec<_> = ["-all".to_owned()].into_iter().chain(names).collect();
    ["setpriv".into(), "--bounding-set".into(), set.join(",") + more, "--".into()]
}

fn launch(network: &Network, config: &Config, scratch: Scratch, more: &str) -> Server {
    let words = wrapper(more);
    Server::launch(network, config, scratch, &words.each_ref().map(String::as_str))
}

/// A folder as packaging/dotd.tmpfiles has it: the user's, with sockets in it that a killed dotd left.
fn with_folders() -> Scratch {
    with_folders_in(Scratch::new())
}

/// The same in a folder that is there.
pub(crate) fn with_folders_in(scratch: Scratch) -> Scratch {
    for (name, mode) in [("state", 0o750), ("run", 0o755)] {
        let folder = scratch.folder(name);
        chown(&folder, Some(NOBODY), Some(NOBODY)).expect("root may");
        fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).expect("root may");
    }
    for name in ["control.sock", "keeper.sock"] {
        let socket = scratch.path().join("run").join(name);
        drop(UnixListener::bind(&socket).expect("root may"));
        lchown(&socket, Some(NOBODY), Some(NOBODY)).expect("root may");
    }
    scratch
}

fn config() -> Config {
    Config::new().set("server", "user", "\"nobody\"")
}

/// A pair whose key is for one user alone.
fn pair(scratch: &Scratch, name: &str, owner: u32) -> Pair {
    let pair = Pair::new(scratch, name, &PKCS_ECDSA_P256_SHA256);
    fs::set_permissions(&pair.key, fs::Permissions::from_mode(0o600)).expect("ours");
    chown(&pair.key, Some(owner), Some(owner)).expect("root may");
    pair
}

fn owners(path: &Path) -> (u32, u32) {
    let found = fs::symlink_metadata(path).expect("it is there");
    (found.uid(), found.gid())
}

/// The verb that the unit's ExecReload= runs, with the unit's capabilities.
fn reload(dotd: &Server) -> (bool, String) {
    let [program, words @ ..] = wrapper("");
    let mut command = Command::new(program);
    command
        .args(words)
        .arg(binary())
        .args(["reload", "--socket"])
        .arg(dotd.folder().join("run/control.sock"));
    let output = command.output().expect("it starts");
    (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

/// Goal: the capabilities of the unit suffice: no right to give files away, to override their modes, or to signal others. Method: a start
/// in folders of the user's, with stale sockets; owners of what was made; reload by the verb and by HUP, an upgrade, a crash of the
/// engine, TERM.
#[test]
fn the_units_capabilities_suffice() {
    require!(Root, Bpf, Command("setpriv"), Command("kdig"));
    let network = Network::new();
    let mut dotd = launch(&network, &config(), with_folders(), "");
    for made in ["run/control.sock", "run/keeper.sock", "state/self-signed.pem"] {
        assert_eq!(owners(&dotd.folder().join(made)), (NOBODY, NOBODY), "{made}");
    }
    assert!(dotd.xdp().starts_with("native"), "{}", dotd.xdp());
    let permitted = of_each_thread(dotd.keeper_pid(), "CapPrm:").concat();
    let permitted = u64::from_str_radix(&permitted, 16).expect("a mask");
    // CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, KILL.
    assert_eq!(permitted & 0b10_1111, 0, "{permitted:x}");
    let (is_done, said) = reload(&dotd);
    assert!(is_done && said.contains("reloaded"), "{said}");
    dotd.signal(Signal::SIGHUP);
    dotd.counts("HUP reaches the engine", |stats| stats.counter("control", "reloads_ok") == 2);
    let said = dotd.operate(&["upgrade"]);
    assert!(said.is_success, "{} {}", said.text, dotd.stderr());
    let before = dotd.pid();
    dotd.signal_engine(Signal::SIGKILL as i32);
    eventually("another engine serves", || {
        (dotd.engines() == 3 && dotd.pids().first().is_some_and(|pid| *pid != before)).then_some(())
    });
    assert!(is_answered_over_tls(&kdig(&network.client, SERVER_V4, "+tls dotd.test A")), "{}", dotd.stderr());
    dotd.stop();
    assert!(!network.server.exists("/sys/fs/bpf/dotd"));
}

/// Goal: at rest the main process acts as the engine's user, so that the kernel ends the engine with it, and the engine can neither signal nor
/// trace it. Method: its ids and its rights in effect; KILL.
#[test]
fn the_engine_ends_with_a_keeper_without_the_right_to_signal_it() {
    require!(Root, Command("setpriv"));
    let network = Network::new();
    let mut dotd = launch(&network, &config().xdp("off"), with_folders(), "");
    let (keeper, engine) = (dotd.keeper_pid(), dotd.pid());
    eventually("it rests", || {
        let ids = of_each_thread(keeper, "Uid:").concat();
        let rights = of_each_thread(keeper, "CapEff:").concat();
        (ids == format!("0\t{NOBODY}\t0\t{NOBODY}") && rights == "0000000000000000").then_some(())
    });
    dotd.signal(Signal::SIGKILL);
    let (ended, _scratch) = dotd.wait();
    assert_eq!(ended.signal, Some(9), "{ended:?}");
    eventually("the engine is gone", || (!Path::new(&format!("/proc/{engine}/exe")).exists()).then_some(()));
}

/// Goal: an engine that does not leave at an upgrade is killed without the right to signal others. Method: it is stopped for good before the
/// upgrade; TERM ends the next one.
#[test]
fn an_engine_that_stands_still_is_killed() {
    require!(Root, Command("setpriv"));
    let network = Network::new();
    let dotd = launch(&network, &config().xdp("off"), with_folders(), "");
    let old = dotd.pid();
    dotd.signal_engine(Signal::SIGSTOP as i32);
    thread::scope(|scope| {
        scope.spawn(|| dotd.operate(&["upgrade"]));
        eventually("it is killed", || {
            dotd.stderr().contains(&format!("process {old} is killed")).then_some(())
        });
        eventually("it is gone", || (!Path::new(&format!("/proc/{old}")).exists()).then_some(()));
    });
    dotd.stop();
}

/// Goal: keys of root and of the engine's user are read without a right over files of others, also in folders that are closed to the other of
/// the two; those of a third user are refused, and the error says whose they are and what to do; with the capability that the guide
/// names they are served. Method: a reload for each owner, with the unit's capabilities; a start with CAP_DAC_READ_SEARCH. Covers:
///
#[test]
fn keys_are_read_as_their_owner() {
    require!(Root, Command("setpriv"));
    let (network, scratch) = (Network::new(), with_folders());
    let [root, user, third] =
        [("root", 0), ("user", NOBODY), ("third", THIRD)].map(|(name, uid)| pair(&scratch, name, uid));
    // The user's key in a folder of root's: each step is open to one of the two.
    let closed = scratch.folder("closed");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).expect("ours");
    let moved: PathBuf = closed.join("user.key");
    fs::rename(&user.key, &moved).expect("ours");
    let by = |cert: &Path, key: &Path| config().xdp("off").certificate(cert, key);
    let dotd = launch(&network, &by(&root.cert, &root.key), scratch, "");
    dotd.rewrite_config(&by(&user.cert, &moved));
    let (is_done, said) = reload(&dotd);
    assert!(is_done, "{said}");
    let served = dotd.status()["certificates"][0]["spki_pin"].clone();
    dotd.rewrite_config(&by(&third.cert, &third.key));
    let (is_done, said) = reload(&dotd);
    let has = |part: &str| assert!(said.contains(part), "{part}: {said}");
    assert!(!is_done, "{said}");
    has("third.key");
    has("uid 65533 with mode 600");
    has("chgrp");
    assert_eq!(dotd.status()["certificates"][0]["spki_pin"], served, "the one from before stays");
    fs::set_permissions(&third.key, fs::Permissions::from_mode(0o640)).expect("root may");
    chown(&third.key, Some(THIRD), Some(NOBODY)).expect("root may");
    let (is_done, said) = reload(&dotd);
    assert!(is_done, "its group may read it: {said}");
    chown(&third.key, Some(THIRD), Some(THIRD)).expect("root may");
    let (_, scratch) = {
        let mut dotd = dotd;
        dotd.signal(Signal::SIGTERM);
        dotd.wait()
    };
    let dotd = launch(&network, &by(&third.cert, &third.key), scratch, ",+dac_read_search");
    let (is_done, said) = reload(&dotd);
    assert!(is_done, "{said}");
    dotd.stop();
}

/// Goal: `dotd check` foresees which keys the packaged dotd could not read, though root in a shell can. Method: /etc of a mount namespace with
/// a config that names keys of root, of the engine's user and of a third one; then the third one's group is the user's.
#[test]
fn check_foresees_a_key_that_the_unit_cannot_read() {
    require!(Root, Command("unshare"));
    let scratch = Scratch::new();
    let pairs =
        [("root", 0), ("user", NOBODY), ("third", THIRD)].map(|(name, uid)| pair(&scratch, name, uid));
    let etc = scratch.folder("etc");
    for name in ["passwd", "group", "nsswitch.conf"] {
        fs::copy(Path::new("/etc").join(name), etc.join(name)).expect("a copy");
    }
    fs::create_dir(etc.join("dotd")).expect("ours");
    let entries = pairs.each_ref().map(Pair::entry).join(", ");
    let text = format!(
        "[server]\nuser = \"nobody\"\n[listen]\ndot = [\"127.0.0.1:8853\"]\n[tls]\ncertificates = [{entries}]\n"
    );
    fs::write(etc.join("dotd/dotd.toml"), text).expect("ours");
    let check = || {
        let mut unshare = Command::new("unshare");
        let script = format!("mount --bind {} /etc && exec {} check", etc.display(), binary().display());
        unshare.args(["--mount", "sh", "-c", &script]);
        let output = unshare.output().expect("it starts");
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{said}");
        said.lines()
            .filter(|line| line.contains("under the packaged unit"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let lines = check();
    assert!(
        lines.len() == 1 && lines[0].contains("third.key") && lines[0].contains("uid 65533"),
        "{lines:?}"
    );
    let third = &pairs[2].key;
    fs::set_permissions(third, fs::Permissions::from_mode(0o640)).expect("root may");
    chown(third, Some(THIRD), Some(NOBODY)).expect("root may");
    assert_eq!(check(), [""; 0]);
}
