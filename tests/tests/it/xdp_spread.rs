//! Packets that move between CPUs (`xdp.steering = "cpumap"`): which ones move, to which CPU, and whether clients are
//! served.
//!
//! Before: a program with queues, or dotd that made them. After: packets that pass go to the CPU of their connection's
//! hash. Needs root; prints SKIPPED without. Never: measures speed: on these machines there is no gain.

use std::{fs, process::Command};

use dot_common::{
    counters,
    maps::{PROGRAM_NOTICE, PROGRAM_SPREAD},
    settings::{Gate, Over, Settings},
    tail_calls,
    verdict::{Action, Reason},
};
use dot_tests::{
    frames::{ACK, Build, CLEARTEXT_QUERY, CLIENT_HELLO, PSH, QUERY, SYN},
    harness::{
        clients::{is_answered_over_tls, kdig},
        config::Config,
        netns::{CLIENT_INTERFACE, Network, SERVER_V4, SERVER_V6},
        scratch::Scratch,
        server::Server,
    },
    require,
    xdp_lab::{Lab, XDP_DROP, XDP_PASS, settings},
};
use nix::mount::{MsFlags, mount};

/// XDP_REDIRECT.
const XDP_REDIRECT: u32 = 4;

/// Goal: packets for dotd that pass are moved, also behind a notice; packets that are dropped or not for dotd are not.
/// Method: a table of frames, with a queue for one CPU; each is counted once and left as it was.
#[test]
fn what_passes_moves() {
    let settings = Settings { over: Over::Count as u8, ..settings(Gate::Count) };
    let tail_calls = [(tail_calls::NOTICE, PROGRAM_NOTICE), (tail_calls::SPREAD, PROGRAM_SPREAD)];
    let Some(mut lab) = Lab::open_with_tail_calls("what_passes_moves", &settings, &tail_calls) else {
        return;
    };
    let foreign = Build::tcp(443, SYN, 7, &[]).frame();
    let lie = Build::tcp(853, SYN, 7, &[]).frame().patched(16, &[0, 99]);
    for (name, frame, wanted) in [
        ("SYN", Build::tcp(853, SYN, 7, &[]).frame(), XDP_REDIRECT),
        ("ACK over IPv6", Build::tcp(853, ACK, 7, &[]).v6().frame(), XDP_REDIRECT),
        ("unknown flow", Build::tcp(853, PSH | ACK, 7, &CLIENT_HELLO).frame(), XDP_REDIRECT),
        ("query", Build::udp(53, &QUERY).frame(), XDP_REDIRECT),
        ("would be dropped", Build::udp(853, b"quic?").frame(), XDP_REDIRECT),
        ("would be dropped again", Build::tcp(853, SYN, 7, &CLEARTEXT_QUERY).frame(), XDP_REDIRECT),
        ("another port", foreign, XDP_PASS),
        ("a lie", lie, XDP_DROP),
    ] {
        let outcome = lab.judge(&frame.octets);
        assert_eq!(outcome.action, wanted, "{name}");
        assert_eq!(outcome.octets, frame.octets, "{name}");
    }
    assert_eq!(lab.notices().len(), 2, "notices come first");
    let would = counters::rows().filter(|row| row.action == Action::WouldDrop);
    assert!(would.map(|row| row.reason).any(|reason| reason == Reason::UdpOnDot));
}

/// Goal: clients are served when packets move, over both IP versions, and dotd reports it. Method: kdig on a veth whose
/// other end writes real checksums, as on a real network.
#[test]
fn clients_are_served_across_cpus() {
    require!(Root, Bpf, Command("kdig"), Command("ethtool"));
    let network = Network::new();
    let mut ethtool = Command::new("ethtool");
    ethtool.args(["-K", CLIENT_INTERFACE, "tx", "off"]);
    let output = network.client.output(ethtool);
    assert!(output.status.success(), "{output:?}");
    let dotd = Server::start(&network, &Config::new().xdp("native").set("xdp", "steering", "\"cpumap\""));
    let shown = dotd.operate(&["xdp", "show"]);
    assert!(shown.has("cpumap, ") && shown.has("dotd_spread"), "{}", shown.text);
    for address in [SERVER_V4, SERVER_V6] {
        for _ in 0..10 {
            let said = kdig(&network.client, address, "+tls www.dotd.test A");
            assert!(is_answered_over_tls(&said), "{address}: {}", said.text);
        }
    }
    assert_eq!(dotd.stats().packets("pass", "syn"), 20, "each SYN is counted once");
    dotd.stop();
}

/// Goal: where the kernel refuses a queue, packets stay on their CPU, clients are served, and dotd says why. Method:
/// /sys names an impossible CPU, for which dotd then asks for a queue.
#[test]
fn a_kernel_that_declines_leaves_packets_where_they_are() {
    require!(Root, Bpf, Command("kdig"));
    let network = Network::new();
    let possible = fs::read_to_string("/sys/devices/system/cpu/possible").expect("Linux says it");
    let highest: u32 = possible.trim().rsplit(['-', ',']).next().unwrap_or_default().parse().expect("a CPU");
    let scratch = Scratch::new();
    let online = scratch.write("online", format!("0,{}\n", highest + 1));
    network.server.run(move || {
        const ONLINE: &str = "/sys/devices/system/cpu/online";
        mount(Some(&online), ONLINE, None::<&str>, MsFlags::MS_BIND, None::<&str>).expect("root may");
    });
    let config = Config::new().xdp("native").set("xdp", "steering", "\"cpumap\"");
    let dotd = Server::launch(&network, &config, scratch, &[]);
    let said = dotd.stderr();
    assert!(said.contains("xdp: packets stay on their CPU: CPU_QUEUES"), "{said}");
    let shown = dotd.operate(&["xdp", "show"]);
    assert!(shown.has("cpumap: CPU_QUEUES") && !shown.has("dotd_spread"), "{}", shown.text);
    for address in [SERVER_V4, SERVER_V6] {
        let said = kdig(&network.client, address, "+tls www.dotd.test A");
        assert!(is_answered_over_tls(&said), "{address}: {}", said.text);
    }
    assert_eq!(dotd.stats().packets("pass", "syn"), 2, "the judge works without");
    dotd.stop();
}
