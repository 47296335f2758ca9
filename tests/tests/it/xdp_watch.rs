//! Changes of an interface or of an attachment while dotd serves without rights: dotd notices them, repairs them where
//! possible, and reports them otherwise.
//!
//! Before: dotd as user nobody, with bpffs closed to it as under systemd. After: `ip link`, bpftool and other programs
//! have made changes, and packets show whether they are judged.
//! Never: lets the clock decide: the time that something took is only printed.

use std::{
    fs::{self, Permissions},
    io::{Read, Write},
    net::{SocketAddr, TcpStream, UdpSocket},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use aya::{
    Ebpf, EbpfLoader,
    programs::{
        Xdp,
        links::{FdLink, PinnedLink},
        xdp::{XdpLink, XdpMode},
    },
};
use dot_common::maps::PROGRAM_XDP;
use dot_tests::{
    harness::{
        clients::{is_answered_over_tls, kdig},
        config::Config,
        eventually,
        netns::{Network, SERVER_INTERFACE, SERVER_V4, SERVER_V6},
        process::bounded,
        server::{Server, binary},
    },
    require,
};
use dot_userspace::xdp::object::OBJECT;
use serde_json::Value;

/// dotd as nobody, to whom bpffs is closed.
fn begin(config: &Config) -> (Network, Server) {
    let network = Network::new();
    let dotd = Server::start(&network, &config.clone().set("server", "user", "\"nobody\""));
    network
        .server
        .run(|| fs::set_permissions("/sys/fs/bpf", Permissions::from_mode(0o700)).expect("root may"));
    assert_eq!(dotd.xdp_report()["degraded"], Value::Null);
    (network, dotd)
}

/// The reason why it is degraded, if it is.
fn degraded(dotd: &Server) -> Option<String> {
    dotd.xdp_report()["degraded"].as_str().map(str::to_owned)
}

fn repairs(dotd: &Server) -> u64 {
    dotd.xdp_report()["repairs"].as_u64().expect("a number")
}

/// Waits until the report has this state, and prints how long that took.
fn until(dotd: &Server, what: &str, is_so: impl Fn(&Server) -> bool) {
    let since = Instant::now();
    eventually(what, || is_so(dotd).then_some(()));
    println!("{what}: after {:?}", since.elapsed());
}

/// Asserts that the kernel half judges packets on the pair: cleartext does not pass, nor does UDP/853, and real clients
/// are served.
fn assert_judges(network: &Network, dotd: &Server) {
    let before = dotd.stats();
    network.client.run(|| {
        let datagrams = UdpSocket::bind("0.0.0.0:0").expect("a port");
        datagrams.send_to(b"quic?", SocketAddr::new(SERVER_V4, 853)).expect("sent");
    });
    dotd.counts("UDP/853 is dropped", |stats| {
        stats.packets("drop", "udp_on_dot") > before.packets("drop", "udp_on_dot")
    });
    for address in [SERVER_V4, SERVER_V6] {
        let said = kdig(&network.client, address, "+tls dotd.test A");
        assert!(is_answered_over_tls(&said), "{}", said.text);
    }
    // Only the learner can know where a stream begins, so the learner works too.
    let after = dotd.stats();
    assert!(after.packets("pass", "client_hello") >= before.packets("pass", "client_hello") + 2);
    assert_eq!(after.packets("pass", "unknown_flow"), before.packets("pass", "unknown_flow"));
}

/// dotd's pins of this kind in the server's namespace, as paths that are valid only there.
fn pins(network: &Network, kind: &'static str) -> Vec<PathBuf> {
    network.server.run(move || {
        let mut folders = vec![PathBuf::from("/sys/fs/bpf/dotd")];
        let mut found = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).expect("root may look").flatten() {
                let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
                if is_folder {
                    folders.push(entry.path());
                } else if entry.file_name().to_string_lossy().starts_with(kind) {
                    found.push(entry.path());
                }
            }
        }
        found
    })
}

fn pin(network: &Network, kind: &'static str) -> PathBuf {
    let found = pins(network, kind);
    assert_eq!(found.len(), 1, "{kind}: {found:?}");
    found[0].clone()
}

/// bpftool in the server's namespace.
fn bpftool(network: &Network, words: &[&str], path: &Path) {
    let mut command = Command::new("bpftool");
    command.args(words).arg(path);
    let output = network.server.output(command);
    assert!(output.status.success(), "bpftool {words:?}: {output:?}");
}

/// An XDP program of another process: dotd's own program, loaded by that process.
fn others_program() -> Ebpf {
    let mut object = EbpfLoader::new().load(OBJECT).expect("the object loads");
    other(&mut object).load().expect("the program loads");
    object
}

fn other(object: &mut Ebpf) -> &mut Xdp {
    object.program_mut(PROGRAM_XDP).expect("it is in the object").try_into().expect("an XDP program")
}

/// Goal: a deleted interface is reported by name; a new one in its place is judged from then on, by a dotd without
/// rights, in both modes. Method: `ip link delete` and `add`; packets after it.
#[test]
fn an_interface_made_anew_is_judged_again() {
    require!(Root, Bpf, Command("kdig"));
    for mode in ["native", "generic"] {
        let (network, dotd) = begin(&Config::new().xdp(mode));
        let old = pin(&network, "xdp_");
        network.server.ip(&format!("link delete {SERVER_INTERFACE}"));
        until(&dotd, "the loss is reported", |dotd| degraded(dotd).is_some());
        assert_eq!(degraded(&dotd).as_deref(), Some("server: no such interface"));
        assert_eq!(dotd.xdp_report()["state"], "off");
        assert!(dotd.stderr().contains("xdp: degraded: server: no such interface"), "{}", dotd.stderr());
        network.make_pair();
        until(&dotd, "it is attached again", |dotd| degraded(dotd).is_none());
        let report = dotd.xdp_report();
        assert_eq!((&report["state"], &report["interfaces"][0]["mode"]), (&mode.into(), &mode.into()));
        assert!(repairs(&dotd) >= 1, "{report}");
        assert!(network.server.ip("link show server").contains("xdp"));
        let new = pin(&network, "xdp_");
        assert_eq!((new.parent(), pins(&network, "learn_").len()), (old.parent(), 1), "{new:?}");
        assert_judges(&network, &dotd);
        dotd.stop();
        assert!(!network.server.ip("link show server").contains("xdp"));
    }
}

/// Goal: down, up, another MTU and another name change nothing: the same program goes on judging, and nothing is
/// reported. Method: `ip link set`, packets after each.
#[test]
fn down_up_mtu_and_rename_change_nothing() {
    require!(Root, Bpf, Command("kdig"));
    let (network, dotd) = begin(&Config::new().xdp("native").set("xdp", "interfaces", "[]"));
    let program = dotd.xdp_report()["programs"][0]["id"].clone();
    for words in ["down", "up", "mtu 9000", "mtu 1280", "mtu 1500"] {
        network.server.ip(&format!("link set {SERVER_INTERFACE} {words}"));
        if words == "up" {
            network.server.ip(&format!("address replace {SERVER_V6}/64 dev {SERVER_INTERFACE} nodad"));
        }
        if words != "down" {
            assert_judges(&network, &dotd);
        }
        assert_eq!(degraded(&dotd), None, "{words}");
        let shown = network.server.ip("-details link show server");
        assert!(shown.contains(&format!("prog/xdp id {program} ")), "{words}: {shown}");
    }
    network.server.ip(&format!("link set {SERVER_INTERFACE} down"));
    network.server.ip(&format!("link set {SERVER_INTERFACE} name wan"));
    network.server.ip("link set wan up");
    network.server.ip(&format!("address replace {SERVER_V6}/64 dev wan nodad"));
    let name = |dotd: &Server| -> Vec<Value> {
        let report = dotd.xdp_report();
        report["interfaces"].as_array().expect("a list").iter().map(|row| row["name"].clone()).collect()
    };
    until(&dotd, "the new name is known", |dotd| name(dotd).contains(&"wan".into()));
    assert!(!name(&dotd).contains(&SERVER_INTERFACE.into()));
    assert_judges(&network, &dotd);
    assert_eq!((degraded(&dotd), repairs(&dotd)), (None, 0));
    dotd.stop();
}

/// Goal: when another user detaches dotd's links, removes its pins or attaches a program in its place, dotd undoes
/// that. Method: bpftool on the pinned links; `rm`; another process's program.
#[test]
fn what_others_take_away_comes_back() {
    require!(Root, Bpf, Command("kdig"));
    let (network, dotd) = begin(&Config::new());
    for (round, kind) in (1..).zip(["xdp_", "learn_"]) {
        bpftool(&network, &["link", "detach", "pinned"], &pin(&network, kind));
        until(&dotd, "a link that was detached is back", |dotd| repairs(dotd) == round);
        assert_judges(&network, &dotd);
    }
    for kind in ["xdp_", "learn_"] {
        let path = pin(&network, kind);
        let removed = path.clone();
        network.server.run(move || fs::remove_file(removed).expect("root may"));
        until(&dotd, "a pin that was removed is back", |_| pins(&network, kind) == [path.clone()]);
    }
    let path = pin(&network, "xdp_");
    let mut theirs = network.server.run(move || {
        let mut object = others_program();
        let link =
            XdpLink::try_from(FdLink::from(PinnedLink::from_pin(path).expect("our pin"))).expect("XDP");
        let program = other(&mut object);
        let id = program.attach_to_link(link).expect("root may");
        // Its descriptor is closed; the link is dotd's.
        drop(FdLink::try_from(program.take_link(id).expect("just made")).expect("a link"));
        object
    });
    until(&dotd, "our program is back in its place", |dotd| repairs(dotd) == 3);
    let ours = dotd.xdp_report()["programs"][0]["id"].clone();
    assert_ne!(ours, other(&mut theirs).info().expect("loaded").id());
    assert!(network.server.ip("-details link show server").contains(&format!("prog/xdp id {ours} ")));
    assert_judges(&network, &dotd);
    assert_eq!(degraded(&dotd), None);
    assert!(dotd.stderr().contains("another program"), "{}", dotd.stderr());
    dotd.stop();
}

/// Goal: an interface with another program's XDP is judged at tc ingress, its row says why, and dotd attaches XDP as
/// soon as the interface is free; where the config requires native XDP the state is degraded. Method: a native program
/// of another process before dotd starts; then that program is detached.
#[test]
fn a_busy_interface_is_taken_once_it_is_free() {
    require!(Root, Bpf, Command("kdig"));
    let network = Network::new();
    let theirs = network.server.run(|| {
        let mut object = others_program();
        other(&mut object).attach(SERVER_INTERFACE, XdpMode::Driver).expect("free");
        object
    });
    let config = Config::new().set("server", "user", "\"nobody\"").set("control", "http", HTTP);
    let dotd = Server::start(&network, &config);
    assert_eq!(degraded(&dotd), None, "it is covered");
    let row = dotd.xdp_report()["interfaces"][0].clone();
    assert_eq!(row["mode"], "tc", "{row}");
    assert!(
        row["reason"].as_str().is_some_and(|why| why.contains("native: ") && why.contains("busy")),
        "{row}"
    );
    assert!(dotd.operate(&["xdp", "show"]).has("0 covered by XDP, 1 by tc ingress, 0 not covered\n"));
    assert_judges(&network, &dotd);
    let said = kdig(&network.client, SERVER_V4, "+tls dotd.test A");
    assert!(is_answered_over_tls(&said), "{}", said.text);
    assert_eq!(health(&network), 200, "XDP is not required");
    drop(theirs);
    until(&dotd, "it is taken", |dotd| dotd.xdp_report()["interfaces"][0]["mode"] == "native");
    assert_eq!(degraded(&dotd), None);
    assert_judges(&network, &dotd);
    dotd.stop();
}

/// Goal: where the config requires XDP, `/health` fails as long as it is lost, `status` says so, and dotd goes on
/// serving. Method: the interface is removed and added again.
#[test]
fn demanded_xdp_that_is_lost_fails_health() {
    require!(Root, Bpf);
    let config = Config::new().set("xdp", "required", "true").set("control", "http", HTTP);
    let (network, dotd) = begin(&config);
    assert_eq!(health(&network), 200);
    network.server.ip(&format!("link delete {SERVER_INTERFACE}"));
    until(&dotd, "health fails", |_| health(&network) == 503);
    let mut command = bounded(&binary().display().to_string());
    command.args(["status", "--socket"]).arg(dotd.folder().join("run/control.sock"));
    let status = String::from_utf8(command.output().expect("it runs").stdout).expect("text");
    assert!(status.contains("DEGRADED: server: no such interface; the config demands it"), "{status}");
    network.make_pair();
    until(&dotd, "health is well", |_| health(&network) == 200);
    dotd.stop();
}

const HTTP: &str = "\"127.0.0.1:8854\"";

/// The status code of `/health`.
fn health(network: &Network) -> u16 {
    let head = network.server.run(|| {
        let mut stream = TcpStream::connect("127.0.0.1:8854").expect("control.http");
        stream.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").expect("sent");
        let mut head = String::new();
        stream.read_to_string(&mut head).expect("answered");
        head
    });
    head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("{head}"))
}

/// Goal: with a wildcard listener a new interface is judged, and one that is removed is dropped from the report without
/// an error. Method: a second pair, after the start.
#[test]
fn a_wildcard_takes_new_interfaces() {
    require!(Root, Bpf);
    let (network, dotd) = begin(&Config::new().xdp("generic").set("xdp", "interfaces", "[]"));
    let names = |dotd: &Server| -> Vec<String> {
        let report = dotd.xdp_report();
        let rows = report["interfaces"].as_array().expect("a list").iter();
        rows.map(|row| row["name"].as_str().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(names(&dotd), ["lo", SERVER_INTERFACE]);
    network.server.ip("link add late type veth peer name later");
    network.server.ip("link set late up");
    until(&dotd, "it is taken", |dotd| names(dotd).contains(&"late".to_owned()));
    assert!(network.server.ip("link show late").contains("xdp"));
    network.server.ip("link delete late");
    until(&dotd, "it is forgotten", |dotd| names(dotd) == ["lo", SERVER_INTERFACE]);
    assert_eq!(degraded(&dotd), None);
    dotd.stop();
}
