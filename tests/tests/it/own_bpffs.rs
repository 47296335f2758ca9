//! A BPF file system of dotd's own, as packaging/run-dotd.bpf.mount has it, in place of /sys/fs/bpf.
//!
//! Before: /run/dotd.bpf is mounted in the mount namespace of a test, under a /run of its own. After: pins are there, those of an earlier start
//! too, and an end leaves nothing attached.

use std::{fs, process::Command};

use dot_tests::{
    harness::{
        config::Config,
        mounts::NOTHING,
        netns::Network,
        scratch::Scratch,
        server::{Server, binary},
    },
    require,
};
use nix::{
    mount::{MsFlags, mount},
    sys::signal::Signal,
    unistd::{Uid, chown},
};

const OWN: &str = "/run/dotd.bpf/dotd";
const USUAL: &str = "/sys/fs/bpf/dotd";

/// Mounts it with the mode and for the owner.
fn with_own(network: &Network, mode: &'static str, owner: u32) {
    network.server.run(move || {
        mount(Some("run"), "/run", Some("tmpfs"), MsFlags::empty(), NOTHING).expect("a tmpfs");
        fs::create_dir("/run/dotd.bpf").expect("ours");
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(Some("bpf"), "/run/dotd.bpf", Some("bpf"), flags, Some(mode)).expect("bpffs");
        chown("/run/dotd.bpf", Some(Uid::from_raw(owner)), None).expect("root may");
    });
}

fn config() -> Config {
    Config::new().set("server", "user", "\"nobody\"")
}

fn has_xdp(network: &Network) -> bool {
    network.server.ip("link show server").contains("xdp")
}

/// Goal: an upgrade to a build with a BPF file system of its own takes links and bans along without a gap, and a later start after KILL
/// finds them there; an end leaves nothing in either place. Method: a start without one, then with one: the verb; KILL to the keeper; the
/// next start.
#[test]
fn pins_move_to_dotds_own() {
    require!(Root, Bpf);
    let network = Network::new();
    let mut dotd = Server::start(&network, &config());
    assert!(dotd.operate(&["ban", "add", "198.51.100.7", "--for", "1h"]).is_success);
    assert!(network.server.exists(USUAL) && !network.server.exists(OWN));
    with_own(&network, "mode=0700", 0);
    let said = dotd.operate(&["upgrade"]);
    assert!(said.is_success, "{} {}", said.text, dotd.stderr());
    assert!(network.server.exists(OWN) && !network.server.exists(USUAL), "{}", dotd.stderr());
    assert!(dotd.stderr().contains("took over the link of a predecessor") && has_xdp(&network));
    assert!(dotd.operate(&["ban", "list"]).has("198.51.100.7"));
    dotd.signal(Signal::SIGKILL);
    let (_, scratch) = dotd.wait();
    assert!(has_xdp(&network) && network.server.exists(OWN));
    let dotd = Server::launch(&network, &config(), scratch, &[]);
    assert!(dotd.stderr().contains("took over the link of a predecessor"), "{}", dotd.stderr());
    assert!(dotd.operate(&["ban", "list"]).has("198.51.100.7"));
    dotd.stop();
    assert!(!has_xdp(&network) && !network.server.exists(OWN) && !network.server.exists(USUAL));
}

/// Goal: what a killed dotd left in the usual place, where the next one may not remove it, neither judges on nor keeps XDP off. Method: KILL;
/// that file system read-only, as in a unit with ProtectKernelTunables=; a start; then `dotd xdp detach` where it may be written.
#[test]
fn what_cannot_be_removed_is_detached() {
    require!(Root, Bpf);
    let network = Network::new();
    let mut dotd = Server::start(&network, &config());
    dotd.signal(Signal::SIGKILL);
    let (_, scratch) = dotd.wait();
    let remount = |flags: MsFlags| {
        let flags = flags | MsFlags::MS_REMOUNT | MsFlags::MS_BIND;
        network.server.run(move || mount(NOTHING, "/sys/fs/bpf", NOTHING, flags, NOTHING).expect("root may"));
    };
    remount(MsFlags::MS_RDONLY);
    with_own(&network, "mode=0700", 0);
    let dotd = Server::launch(&network, &config(), scratch, &[]);
    assert_eq!(dotd.xdp(), "native on server");
    assert!(dotd.stderr().contains("run `dotd xdp detach`"), "{}", dotd.stderr());
    assert!(network.server.exists(OWN));
    dotd.stop();
    assert!(!has_xdp(&network) && !network.server.exists(OWN));
    remount(MsFlags::empty());
    assert!(network.server.exists(USUAL));
    let mut detach = Command::new(binary());
    detach.args(["xdp", "detach"]);
    let output = network.server.output(detach);
    assert!(output.status.success() && !network.server.exists(USUAL), "{output:?}");
}

/// Goal: a BPF file system that another user could enter is not dotd's own. Method: one that every user may enter, and one of another user's:
/// pins are in the usual place.
#[test]
fn one_that_others_may_enter_is_not_used() {
    require!(Root, Bpf);
    for (mode, owner) in [("mode=1777", 0), ("mode=0755", 0), ("mode=0700", 65_534)] {
        let network = Network::new();
        with_own(&network, mode, owner);
        let dotd = Server::launch(&network, &config(), Scratch::new(), &[]);
        assert_eq!(dotd.xdp(), "native on server");
        assert!(network.server.exists(USUAL) && !network.server.exists(OWN), "{mode} {owner}");
        dotd.stop();
        assert!(!network.server.exists(USUAL));
    }
}
