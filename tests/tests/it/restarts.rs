//! Restarts: one dotd ends in order, another one begins, and the service manager tells that from a stop.
//!
//! Before: a dotd with `--restart-dir`. After: TERM, and a start; where the folder was emptied meanwhile, that was a stop.

use std::{
    collections::BTreeSet,
    fs,
    io::ErrorKind,
    net::{SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use aya::programs::links::{FdLink, PinnedLink};
use dot_tests::{
    harness::{
        config::Config,
        dot::Dot,
        eventually,
        message::www,
        netns::{Network, SERVER_V4},
        scratch::Scratch,
        server::{Ended, Server, binary},
    },
    require,
    xdp_field::pins,
};
use nix::sys::signal::Signal;

/// A folder as the service manager makes it.
struct Manager {
    network: Network,
    folder: Scratch,
}

impl Manager {
    fn new() -> Self {
        Self { network: Network::new(), folder: Scratch::new() }
    }

    fn start(&self, config: &Config, scratch: Scratch) -> Result<Server, Ended> {
        let shell = format!("exec \"$@\" --restart-dir {}", self.folder.path().display());
        Server::attempt(&self.network, config, scratch, &["sh", "-c", &shell, "sh"])
    }

    fn end(mut dotd: Server) -> Scratch {
        dotd.signal(Signal::SIGTERM);
        let (ended, scratch) = dotd.wait();
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        scratch
    }

    fn restart(&self, dotd: Server, config: &Config) -> Server {
        self.start(config, Self::end(dotd)).unwrap_or_else(|ended| panic!("{ended:?}"))
    }

    /// What a stop does.
    fn remove_folder(&self) {
        fs::remove_file(self.folder.path().join("served.toml")).expect("a dotd has served");
    }
}

fn config() -> Config {
    Config::new().set("server", "user", "\"nobody\"")
}

/// Goal: bans, with their reasons, apply after a restart, and not after a stop. Method: a ban; TERM and a start, with the folder as it is,
/// and emptied.
#[test]
fn bans_survive_a_restart_and_no_stop() {
    require!(Root, Bpf);
    let manager = Manager::new();
    let dotd = manager.start(&config(), Scratch::new()).unwrap_or_else(|ended| panic!("{ended:?}"));
    assert!(dotd.operate(&["ban", "add", "198.51.100.7", "--for", "1h", "--reason", "a flood"]).is_success);
    let dotd = manager.restart(dotd, &config());
    let said = dotd.operate(&["ban", "list"]);
    assert!(said.has("198.51.100.7") && said.has("a flood"), "{} {}", said.text, dotd.stderr());
    let dotd = manager.restart(dotd, &config());
    assert!(dotd.operate(&["ban", "list"]).has("198.51.100.7"), "{}", dotd.stderr());
    let scratch = Manager::end(dotd);
    manager.remove_folder();
    let dotd = manager.start(&config(), scratch).unwrap_or_else(|ended| panic!("{ended:?}"));
    let said = dotd.operate(&["ban", "list"]);
    assert!(!said.has("198.51.100.7"), "{}", said.text);
    dotd.stop();
}

/// The kernel's numbers of the links that dotd has pinned here.
fn link_ids() -> Vec<u32> {
    let is_link = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        ["xdp_", "learn_", "ingress_"].iter().any(|kind| name.starts_with(kind))
    };
    let links = pins().into_iter().filter(is_link).filter_map(|path| PinnedLink::from_pin(path).ok());
    let ids = links.filter_map(|link| FdLink::from(link).info().ok()).map(|info| info.id());
    ids.collect::<BTreeSet<_>>().into_iter().collect()
}

/// Goal: XDP and the learner stay attached from one dotd to the next over a restart, and judge meanwhile: a card's rings are not reset.
/// At a stop they go, by the unit's ExecStopPost=. Method: the kernel's numbers of both links over two restarts, cleartext's segments to
/// the port in between; then the command of the unit, with a program in place of systemctl that has the unit's job.
#[test]
fn links_stay_over_a_restart() {
    require!(Root, Bpf);
    let manager = Manager::new();
    let server = &manager.network.server;
    let links = || server.run(link_ids);
    let deny = config().set("xdp", "deny", "[\"10.53.0.2/32\"]");
    let mut dotd = manager.start(&deny, Scratch::new()).unwrap_or_else(|ended| panic!("{ended:?}"));
    let first = links();
    assert_eq!(first.len(), 2, "the judge and the learner: {first:?}");
    for _ in 0..2 {
        let scratch = Manager::end(dotd);
        assert_eq!(links(), first, "after its end");
        // A denied client hears nothing; without the judge the stack would reset it.
        let refused = manager
            .network
            .client
            .run(|| TcpStream::connect_timeout(&SocketAddr::new(SERVER_V4, 853), Duration::from_millis(300)));
        assert_eq!(refused.map(|_| ()).map_err(|error| error.kind()), Err(ErrorKind::TimedOut));
        dotd = manager.start(&deny, scratch).unwrap_or_else(|ended| panic!("{ended:?}"));
        assert_eq!(links(), first, "taken over");
    }
    // A dotd that wants no XDP leaves none of its predecessor's.
    let dotd = manager.restart(dotd, &deny.clone().xdp("off"));
    eventually("nothing is attached", || links().is_empty().then_some(()));
    let dotd = manager.restart(dotd, &deny);
    let first = links();
    assert_eq!(first.len(), 2);
    let scratch = Manager::end(dotd);
    let detach = |job: &str, result: &str| {
        let systemctl =
            scratch.write("systemctl", format!("#!/bin/sh\n[ \"$1\" = list-jobs ] && echo '{job}'\n"));
        fs::set_permissions(&systemctl, fs::Permissions::from_mode(0o755)).expect("ours");
        let unit = include_str!("../../../packaging/dotd.service");
        let words =
            unit.lines().find_map(|line| line.strip_prefix("ExecStopPost=-/usr/bin/dotd ")).expect("a line");
        let mut command = Command::new(binary());
        let path = format!("{}:{}", scratch.path().display(), std::env::var("PATH").unwrap_or_default());
        command.args(words.split(' ')).env("PATH", path).env("SERVICE_RESULT", result).stdin(Stdio::null());
        let output = server.output(command);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(detach("7 dotd.service restart running", "success").contains("restarts"));
    assert!(detach("7 dotd.service stop running", "exit-code").contains("failed"));
    assert_eq!(links(), first);
    assert!(detach("7 dotd.service stop running", "success").contains("removed 2 links"));
    eventually("nothing is attached", || links().is_empty().then_some(()));
    assert!(!server.exists("/sys/fs/bpf/dotd"));
}

/// Goal: a restart with a mistake in the config serves on by the config from before, and says each mistake as an error; a reload without
/// mistakes ends that; a crash and an upgrade do not change it; a start that follows a stop fails. Method: an unknown key.
#[test]
fn a_bad_config_at_a_restart_leaves_the_good_one() {
    require!(Root);
    let manager = Manager::new();
    let good = config().xdp("off").set("session", "in_flight_max", "7");
    let bad = good.clone().set("session", "nonsense", "1");
    let dotd = manager.start(&good, Scratch::new()).unwrap_or_else(|ended| panic!("{ended:?}"));
    let dotd = manager.restart(dotd, &bad);
    let is_served = || {
        let mut client = Dot::connect(&manager.network.client, SERVER_V4);
        assert_eq!(client.exchange(&www(1)).rcode(), 0);
    };
    is_served();
    let log = dotd.stderr();
    let line = log.lines().find(|line| line.contains("nonsense")).unwrap_or_else(|| panic!("{log}"));
    assert!(line.contains("ERROR") && line.contains("by the config from before this restart"), "{line}");
    assert!(dotd.operate(&["config", "show"]).has("in_flight_max = 7"));
    assert!(!dotd.operate(&["reload"]).is_success);
    let dotd = manager.restart(dotd, &bad);
    is_served();
    dotd.rewrite_config(&good.clone().set("session", "in_flight_max", "8"));
    let said = dotd.operate(&["reload"]);
    assert!(said.is_success, "{}", said.text);
    let dotd = manager.restart(dotd, &bad);
    assert!(dotd.operate(&["config", "show"]).has("in_flight_max = 8"), "{}", dotd.stderr());
    let scratch = Manager::end(dotd);
    manager.remove_folder();
    let ended = manager.start(&bad, scratch).expect_err("it follows a stop");
    assert!(ended.stderr.contains("nonsense"), "{}", ended.stderr);
}
