//! Without some rights or features of the machine dotd still serves, and reports what is missing.
//!
//! Before: rights removed by setpriv, ports in use, missing files. After: dotd serves, or ends with one line.

use std::{fs, net::SocketAddr};

use dot_tests::{
    harness::{
        clients::{is_answered_over_tls, kdig, tool},
        config::Config,
        netns::{Network, SERVER_V4},
        scratch::Scratch,
        server::{Ended, Server},
    },
    require,
};

/// Removes from root the rights to load and attach BPF programs; ports below 1024 remain.
const WITHOUT_BPF: [&str; 4] = ["setpriv", "--bounding-set", "-bpf,-net_admin,-sys_admin,-perfmon", "--"];
/// The user `nobody`, and no capability at all.
const AS_NOBODY: [&str; 7] =
    ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set", "-all", "--"];

/// Asserts one line on stderr that begins with dotd's name, and exit code 1.
fn assert_one_line(ended: &Ended, part: &str) {
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let lines: Vec<&str> = ended.stderr.lines().collect();
    assert!(
        lines.len() == 1 && lines[0].starts_with("dotd: ") && lines[0].contains(part),
        "{part}: {ended:?}"
    );
}

/// Goal: without BPF rights dotd serves over TLS and says why XDP is off. Method: capabilities removed from the
/// bounding set; the line, `ip link`, kdig. Covers: A-81
#[test]
fn without_bpf_rights_it_serves() {
    require!(Root, Command("setpriv"), Command("kdig"));
    let network = Network::new();
    let dotd = Server::launch(&network, &Config::new(), Scratch::new(), &WITHOUT_BPF);
    let line = dotd.xdp();
    assert!(line.starts_with("off (") && line.ends_with(')') && line.len() > 8, "{line}");
    assert!(!network.server.ip("link show server").contains("xdp"));
    assert!(is_answered_over_tls(&kdig(&network.client, SERVER_V4, "+tls dotd.test A")));
    dotd.stop();
}

/// Goal: where XDP is required and not available, dotd ends with one line and exit code 1. Method: `required`, and the
/// two modes that require XDP, without BPF rights. Covers: A-81
#[test]
fn required_xdp_without_rights_is_refused() {
    require!(Root, Command("setpriv"));
    let network = Network::new();
    for config in [
        Config::new().set("xdp", "required", "true"),
        Config::new().xdp("native"),
        Config::new().xdp("generic"),
    ] {
        let ended = Server::attempt(&network, &config, Scratch::new(), &WITHOUT_BPF).expect_err("refused");
        assert_one_line(&ended, "");
    }
}

/// Goal: native mode on an interface whose driver lacks it is refused in one line, and no program stays attached.
/// Method: lo has no native XDP. Covers: A-81
#[test]
fn native_on_lo_is_refused() {
    require!(Root, Bpf);
    let network = Network::new();
    let config = Config::new().xdp("native").set("xdp", "interfaces", r#"["lo", "server"]"#);
    let ended = Server::attempt(&network, &config, Scratch::new(), &[]).expect_err("refused");
    assert_one_line(&ended, "lo");
    for interface in ["lo", "server"] {
        assert!(!network.server.ip(&format!("link show {interface}")).contains("xdp"), "{interface}");
    }
}

/// Goal: one line names an interface that does not exist. Method: `xdp.interfaces` with a name of no interface, and XDP
/// required.
#[test]
fn an_absent_interface_is_named() {
    require!(Root, Bpf);
    let network = Network::new();
    let config = Config::new().set("xdp", "interfaces", r#"["eth77"]"#).set("xdp", "required", "true");
    let ended = Server::attempt(&network, &config, Scratch::new(), &[]).expect_err("refused");
    assert_one_line(&ended, "eth77");
}

/// Goal: without a bpffs dotd still attaches, or reports why not, and serves. Method: a namespace whose /sys/fs/bpf is
/// empty. Covers: A-81
#[test]
fn without_bpffs_it_serves() {
    require!(Root, Bpf, Command("kdig"));
    let network = Network::without_bpffs();
    let dotd = Server::start(&network, &Config::new());
    assert!(dotd.xdp().starts_with("native") || dotd.xdp().starts_with("off ("), "{}", dotd.xdp());
    assert!(is_answered_over_tls(&kdig(&network.client, SERVER_V4, "+tls dotd.test A")));
    dotd.stop();
    assert!(!network.server.ip("link show server").contains("xdp"));
}

/// Goal: an ordinary user can run it on a high port, and is told that XDP is off. Method: as nobody, without
/// capabilities, on 8853. Covers: A-81
#[test]
fn an_ordinary_user_serves_a_high_port() {
    require!(Root, Command("setpriv"), Command("kdig"));
    let network = Network::new();
    let scratch = Scratch::new();
    for folder in ["state", "run"] {
        let path = scratch.folder(folder);
        std::os::unix::fs::chown(&path, Some(65_534), Some(65_534)).expect("root may");
    }
    let config = Config::new().set("listen", "dot", r#"["0.0.0.0:8853", "[::]:8853"]"#);
    let dotd = Server::launch(&network, &config, scratch, &AS_NOBODY);
    assert!(dotd.xdp().starts_with("off ("), "{}", dotd.xdp());
    let status = fs::read_to_string(format!("/proc/{}/status", dotd.pid())).expect("it runs");
    assert!(status.contains("Uid:\t65534\t65534"), "{status}");
    let at = format!("@{SERVER_V4}");
    let said = tool(&network.client, "kdig", &[&at, "-p", "8853", "+tls", "dotd.test", "A"]);
    assert!(is_answered_over_tls(&said), "{}", said.text);
    dotd.stop();
}

/// Goal: an ordinary user on 853 gets one line that names the port and the remedy. Method: as nobody, the default
/// ports, where the kernel reserves them.
#[test]
fn an_ordinary_user_on_853_is_told() {
    require!(Root, Command("setpriv"));
    let network = Network::new();
    let scratch = Scratch::new();
    for folder in ["state", "run"] {
        let path = scratch.folder(folder);
        std::os::unix::fs::chown(&path, Some(65_534), Some(65_534)).expect("root may");
    }
    let ended = Server::attempt(&network, &Config::new(), scratch, &AS_NOBODY).expect_err("refused");
    assert_one_line(&ended, "853");
}

/// Goal: a port in use is named in one line, and no program stays attached. Method: a process of the test listens
/// there.
#[test]
fn a_port_in_use_is_named() {
    require!(Root);
    let network = Network::new();
    let at = SocketAddr::new(SERVER_V4, 853);
    let _taken = network.server.run(move || std::net::TcpListener::bind(at).expect("free"));
    let ended = Server::attempt(&network, &Config::new(), Scratch::new(), &[]).expect_err("refused");
    assert_one_line(&ended, "853");
    assert!(!network.server.ip("link show server").contains("xdp"));
}

/// Goal: every config mistake is reported in one line that names it, with exit code 1. Method: a wrong key, a wrong
/// value, a wrong type, a missing certificate, a wrong user, not TOML.
#[test]
fn config_mistakes_are_one_line_each() {
    require!(Root);
    let network = Network::new();
    let off = || Config::new().xdp("off");
    let missing = Scratch::new().path().join("none.pem");
    for (config, part) in [
        (off().set("session", "idle_timout", "\"5s\""), "idle_timeout"),
        (off().set("session", "idle_timeout", "5"), "idle_timeout"),
        (off().set("session", "idle_timeout", "\"0s\""), "idle_timeout"),
        (off().set("server", "workers", "\"many\""), "workers"),
        (off().set("server", "workers", "0"), "workers"),
        (off().set("server", "user", "\"no-such-user\""), "no-such-user"),
        (off().set("xdp", "mode", "\"turbo\""), "turbo"),
        (off().certificate(&missing, &missing), "none.pem"),
        (off().set("listen", "dot", "[\"localhost\"]"), "dot"),
        (off().set("listen", "dot", "yes"), "TOML"),
    ] {
        let ended = Server::attempt(&network, &config, Scratch::new(), &[]).expect_err("refused");
        assert_one_line(&ended, part);
    }
}
