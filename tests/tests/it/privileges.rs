//! After its start dotd has no right of root, and after its end nothing of dotd is left in the kernel.
//!
//! Before: a running dotd. After: /proc, `ip link`, bpffs and bpftool confirm it.

use std::{fs, os::unix::fs::MetadataExt, path::Path, process::Command};

use nix::sys::signal::Signal;

use dot_tests::{
    harness::{
        clients::{is_answered_over_tls, kdig},
        config::Config,
        netns::{Network, SERVER_V4, SERVER_V6},
        process::of_each_thread,
        scene::embedded,
        scratch::Scratch,
        server::Server,
    },
    require,
};

fn assert_no_capability(dotd: &Server) {
    for key in ["CapEff:", "CapPrm:", "CapInh:", "CapAmb:"] {
        let values = of_each_thread(dotd.pid(), key);
        assert!(values.len() >= 3, "two workers and the first thread: {values:?}");
        assert!(values.iter().all(|value| value == "0000000000000000"), "{key} {values:?}");
    }
}

/// Asserts that there is no XDP on the link, no program of dotd on the interface, and no pin.
fn assert_nothing_left(network: &Network) {
    assert!(!network.server.ip("link show server").contains("xdp"));
    let mut command = Command::new("bpftool");
    command.args(["net", "show", "dev", "server"]);
    let shown = String::from_utf8_lossy(&network.server.output(command).stdout).into_owned();
    assert!(!shown.contains("server("), "{shown}");
    assert!(
        network.server.exists("/sys/fs/bpf") && !network.server.exists("/sys/fs/bpf/dotd"),
        "pins are left"
    );
}

fn assert_serves(network: &Network) {
    for address in [SERVER_V4, SERVER_V6] {
        let said = kdig(&network.client, address, "+tls dotd.test A");
        assert!(is_answered_over_tls(&said), "{}", said.text);
    }
}

/// Goal: with `user = ""` every thread has dropped every capability, and everything goes on working. Method:
/// /proc/PID/task/*/status; queries and the control socket after that.
#[test]
fn no_thread_keeps_a_capability() {
    require!(Root, Bpf, Command("kdig"));
    let (network, dotd) = embedded(&Config::new().set("server", "user", "\"\""));
    assert_no_capability(&dotd);
    assert_serves(&network);
    assert!(dotd.stats().packets("pass", "") > 0, "the maps are readable without capabilities");
    assert_no_capability(&dotd);
    dotd.stop();
    assert_nothing_left(&network);
}

/// Goal: with `user = "nobody"` every thread is nobody, without capabilities, groups or a way back.
/// Method: as above, and the Uid, Gid and Groups lines; it still takes everything away at its end.
#[test]
fn user_nobody_is_nobody_in_every_thread() {
    require!(Root, Bpf, Command("kdig"));
    let (network, dotd) = embedded(&Config::new().set("server", "user", "\"nobody\""));
    assert_no_capability(&dotd);
    for key in ["Uid:", "Gid:"] {
        let values = of_each_thread(dotd.pid(), key);
        assert!(values.iter().all(|value| value == "65534\t65534\t65534\t65534"), "{key} {values:?}");
    }
    assert!(
        of_each_thread(dotd.pid(), "Groups:").iter().all(|groups| groups.is_empty() || groups == "65534")
    );
    assert_serves(&network);
    assert!(dotd.stats().packets("pass", "") > 0);
    dotd.stop();
    assert_nothing_left(&network);
}

/// Goal: a folder that is not dotd's alone keeps its owner, with every file in it except dotd's own, so that an
/// operator who names /etc by mistake gives nothing away. Method: a file of root's in both folders, `user = "nobody"`;
/// owners afterwards.
#[test]
fn folders_of_others_are_not_given_away() {
    require!(Root);
    let scratch = Scratch::new();
    let others = ["state", "run"].map(|name| {
        fs::write(scratch.folder(name).join("shadow"), "secret").expect("our own folder");
        scratch.path().join(name)
    });
    let network = Network::new();
    let dotd =
        Server::launch(&network, &Config::new().xdp("off").set("server", "user", "\"nobody\""), scratch, &[]);
    let owner = |path: &Path| fs::symlink_metadata(path).expect("it is there").uid();
    for folder in others {
        assert_eq!((owner(&folder), owner(&folder.join("shadow"))), (0, 0), "{}", folder.display());
    }
    assert!(dotd.stderr().contains("server.state_dir"), "{}", dotd.stderr());
    assert_eq!(owner(&dotd.folder().join("state/self-signed.pem")), 65_534);
    assert_eq!(dotd.status()["state"], "serving");
    dotd.stop();
}

/// Goal: SIGTERM and SIGINT leave nothing attached, native or generic.
/// Method: `ip link`, bpftool and bpffs after each.
#[test]
fn a_clean_stop_leaves_nothing() {
    require!(Root, Bpf);
    for (mode, signal) in [("native", Signal::SIGTERM), ("generic", Signal::SIGINT)] {
        let (network, mut dotd) = embedded(&Config::new().xdp(mode));
        assert!(network.server.ip("link show server").contains("xdp"));
        dotd.signal(signal);
        let (ended, _scratch) = dotd.wait();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert_nothing_left(&network);
    }
}

/// Goal: after SIGKILL the next start takes over what the last dotd left: programs, pins, socket file. Method: kill,
/// start again in the same folders, queries over XDP, a clean stop.
#[test]
fn a_start_after_sigkill_takes_over() {
    require!(Root, Bpf, Command("kdig"));
    for mode in ["native", "generic"] {
        let network = Network::new();
        let config = Config::new().xdp(mode);
        let mut first = Server::start(&network, &config);
        let pin = first.pin();
        first.signal(Signal::SIGKILL);
        let (ended, scratch): (_, Scratch) = first.wait();
        assert_eq!(ended.code, None, "{ended:?}");
        let second = Server::launch(&network, &config, scratch, &[]);
        assert_eq!(
            (second.xdp(), second.pin()),
            (format!("{mode} on server"), pin),
            "the certificate is kept"
        );
        assert_serves(&network);
        assert!(second.stats().packets("pass", "") > 0);
        second.stop();
        assert_nothing_left(&network);
    }
}

/// Goal: only their owner can use the key and the control socket. Method: the modes of the files in the two folders.
///
#[test]
fn secrets_are_for_their_owner_alone() {
    require!(Root);
    use std::os::unix::fs::PermissionsExt;
    let (_network, dotd) = embedded(&Config::new());
    for entry in fs::read_dir(dotd.folder().join("state")).expect("its folder").flatten() {
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        let mode = entry.metadata().expect("there").permissions().mode() & 0o777;
        assert!(!text.contains("PRIVATE KEY") || mode & 0o077 == 0, "{:?} has mode {mode:o}", entry.path());
    }
    let socket = fs::metadata(dotd.folder().join("run/control.sock")).expect("a control socket");
    assert_eq!(socket.permissions().mode() & 0o007, 0, "others may speak to the control socket");
}
