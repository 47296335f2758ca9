//! The cost of a SYN of a flood on this machine: dropped by XDP, answered with a cookie by XDP or at tc ingress, and
//! handled by the stack.
//!
//! Before: root, and a dotd that cargo built. After: a table of CPU nanoseconds for each frame.
//! Holds: a raw sender on one end of a veth pair, dotd on the other. A frame's whole way (sending, the pair, XDP or the
//! stack) runs in the sender's own context, so that the thread's CPU time is its cost; what the kernel had put off to its
//! own threads is added. The row of frames that XDP drops first is the floor: what the way there costs in any case.
//! Never: counts a frame that the pair refused; trusts the name of a row without the counter that proves it; leaves a
//! flood running.

use std::{
    fs,
    net::Ipv4Addr,
    os::fd::AsFd,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use dot_tests::{
    frames::{Build, SYN},
    harness::{
        flood::Wire,
        netns::{CLIENT_INTERFACE, CLIENT_V4, Network, SERVER_INTERFACE, SERVER_V4},
    },
    xdp_field::{count, listeners, pass_everything},
};
use dot_userspace::{
    config::{SynCookies, SynOver, Xdp as Config, XdpMode},
    xdp::{ListenerGroup, Xdp, start, with_proxy},
};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    time::{ClockId, clock_gettime},
    unistd::{Pid, geteuid},
};

/// Frames in a round: enough that a tick of the kernel's accounting does not matter.
const FRAMES: usize = 200_000;
/// The best of so many: other programs only add.
const ROUNDS: usize = 5;
/// Addresses that the flood comes from, 10.128.0.0/16.
const SOURCES: u32 = 65_536;

/// The kind of a case.
#[derive(Clone, Copy)]
enum Frames {
    /// Datagrams to 853.
    Datagrams,
    /// SYNs to a port.
    Syns(u16),
    /// SYNs to 853, in a namespace that answers each with a cookie; the other end passes everything natively, without
    /// which a veth loses what XDP sends.
    Cookies,
    /// SYNs to 853 with a segment size, which the proxy at tc ingress wants.
    Sized,
}

fn main() -> Result<()> {
    if !geteuid().is_root() {
        bail!("network namespaces and XDP need root: run as root");
    }
    let mut native = Config { mode: XdpMode::Native, ..Config::default() };
    native.limit.syn_per_second = 0;
    let mut limited = native.clone();
    (limited.limit.syn_per_second, limited.limit.syn_burst, limited.limit.prefix_v4) = (1, 1, 16);
    // Otherwise a SYN of a client without a proof goes to the stack, for a cookie.
    limited.limit.syn_over = SynOver::Drop;
    let answering = Config { syn_cookies: SynCookies::Always, ..native.clone() };
    let mut proxying = Config { syn_cookies: SynCookies::Proxy, ..native.clone() };
    proxying.limit.syn_flood_rate = 1;
    let denying = Config { deny: vec!["10.128.0.0/16".parse()?], ..native.clone() };
    let cases = [
        ("XDP: UDP to 853 (floor)", Some(&native), Frames::Datagrams),
        ("XDP: SYN, denied", Some(&denying), Frames::Syns(853)),
        ("XDP: SYN, over its rate", Some(&limited), Frames::Syns(853)),
        ("XDP passes, stack: SYN-ACK", Some(&native), Frames::Syns(853)),
        ("stack alone: SYN-ACK", None, Frames::Syns(853)),
        ("stack alone: RST, no listener", None, Frames::Syns(854)),
        ("XDP: SYN-ACK by cookie", Some(&answering), Frames::Cookies),
        ("XDP passes, stack: cookie", Some(&native), Frames::Cookies),
        ("stack alone: cookie", None, Frames::Cookies),
        ("XDP passes, tc: SYN proxy", Some(&proxying), Frames::Sized),
    ];
    println!("{:<32}{:>14}{:>18}{:>14}", "frame", "CPU ns/frame", "above the floor", "frames/s");
    let mut floor = None;
    for (name, config, frames) in cases {
        if matches!(frames, Frames::Sized)
            && let Err(why) = with_proxy()
        {
            println!("{name:<32}{why}");
            continue;
        }
        let (cost, rate) = measure(config, frames).with_context(|| name.to_owned())?;
        let floor = *floor.get_or_insert(cost);
        println!("{name:<32}{cost:>14}{:>18}{rate:>14}", cost.saturating_sub(floor));
    }
    println!(
        "\nbest of {ROUNDS} rounds of {FRAMES} frames from {SOURCES} addresses over a veth pair, XDP native."
    );
    println!("What is answered is dropped at the other end, which is in its figure.");
    println!(
        "frames/s: by the clock, with their sender on the same core. The limits of HAProxy and dnsdist see no SYN: one costs"
    );
    println!(
        "them what the stack takes for it, and who completes its connection their accept and close as well, for which"
    );
    println!("there is `cargo xtask bench attack`.");
    Ok(())
}

/// CPU nanoseconds a frame, and frames a second.
fn measure(config: Option<&Config>, frames: Frames) -> Result<(u64, u64)> {
    let network = Network::new();
    let with_cookies = matches!(frames, Frames::Cookies);
    let _peer = with_cookies.then(|| network.client.run(|| pass_everything(CLIENT_INTERFACE)));
    let is_answering = config.is_some_and(|config| config.syn_cookies == SynCookies::Always);
    let config = config.cloned();
    let (_listeners, xdp) = network.server.run(move || -> Result<_> {
        fs::write("/proc/sys/net/ipv4/tcp_syncookies", if with_cookies { "2" } else { "1" })?;
        serve(config.as_ref())
    })?;
    // SYN-ACKs and RSTs go to a machine that does not exist, as on a real network.
    let client = network.client.ip(&format!("-brief link show {CLIENT_INTERFACE}"));
    let address = client.split_whitespace().nth(2).context("an Ethernet address")?;
    network.server.ip(&format!("neighbour replace {CLIENT_V4} lladdr {address} dev {SERVER_INTERFACE}"));
    network.server.ip(&format!("route add default via {CLIENT_V4}"));
    let wire = Wire::open(&network);
    let flood: Vec<Vec<u8>> = (0..SOURCES)
        .map(|number| {
            let source = Ipv4Addr::from_bits(0x0a80_0000 + number);
            let build = match frames {
                Frames::Datagrams => Build::udp(853, b"no quic here"),
                Frames::Syns(port) => Build::tcp(port, SYN, number, &[]),
                Frames::Cookies => Build::tcp(853, SYN, number, &[]),
                Frames::Sized => Build::tcp(853, SYN, number, &[]).segment_size(),
            };
            wire.addressed(build.client(source.into()).server(SERVER_V4).frame())
        })
        .collect();
    let mut one = CpuSet::new();
    one.set(0)?;
    sched_setaffinity(Pid::from_raw(0), &one)?;
    let (mut best, mut rate, mut all) = (u64::MAX, 0, 0);
    for _ in 0..ROUNDS {
        let (before, begun) = (cpu_time()?, Instant::now());
        let sent = flood.iter().cycle().take(FRAMES).filter(|octets| wire.send_octets(octets)).count();
        let spent = u64::try_from((cpu_time()? - before).as_nanos())?;
        let (sent, passed) = (u64::try_from(sent)?, u64::try_from(begun.elapsed().as_micros())?);
        best = best.min(spent.checked_div(sent).context("the pair took no frame")?);
        rate = rate.max((sent * 1_000_000).checked_div(passed).unwrap_or_default());
        all += sent;
    }
    if let Some(xdp) = xdp {
        let answered = count(&xdp, "answer", "syn_cookie");
        if answered != if is_answering { all } else { 0 } {
            bail!("{answered} of {all} SYN were answered by XDP");
        }
        let proxied = xdp.report().proxied.answered;
        // The rate lets one SYN a second through to the stack.
        if matches!(frames, Frames::Sized) && proxied < all * 99 / 100 {
            bail!("{proxied} of {all} SYN were answered at tc ingress");
        }
        xdp.detach();
    }
    Ok((best, rate))
}

/// A listener on 853, and XDP before it if there is a config.
fn serve(config: Option<&Config>) -> Result<(Vec<std::net::TcpListener>, Option<Xdp>)> {
    let listeners = listeners(&format!("{SERVER_V4}:853"), 1);
    let group = ListenerGroup {
        address: listeners[0].local_addr()?,
        sockets: listeners.iter().map(AsFd::as_fd).collect(),
    };
    let xdp = config.map(|config| start(config, &[group])).transpose()?;
    Ok((listeners, xdp))
}

/// CPU time of this thread, in whose context the kernel handles its frames, and of the kernel threads to which it puts
/// them off when there are too many.
fn cpu_time() -> Result<Duration> {
    let ours: Duration = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path());
    let put_off = processes.filter(|path| {
        fs::read_to_string(path.join("comm")).is_ok_and(|name| name.starts_with("ksoftirqd/"))
    });
    let nanoseconds = put_off.filter_map(|path| {
        let text = fs::read_to_string(path.join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    });
    Ok(ours + Duration::from_nanos(nanoseconds.sum()))
}
