//! `dotd verify`: looks at the packets of the DNS-over-TLS ports, and says whether they are TLS.
//!
//! Before: the shell; the right to capture. After: a table of records by version and octets in clear; exit status 1 if
//! dotd sent an octet in clear.
//! Holds: a packet socket with a filter for the ports. Never: asks dotd what it sent, keeps a payload, sends, or runs for
//! longer than it was told.
//!
//! Source: packet(7), linux/filter.h.

mod segment;
mod wire;

use std::{
    fmt::Write as _,
    io::{self, Read as _},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use clap::Args;
use nix::net::if_::if_nametoindex;
use serde::Serialize;
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use tracing::Level;

use self::wire::{Records, Seen, Wire};
use super::{ask, complain, error::CliError, print, socket};
use crate::{
    cli::arguments::ControlArguments,
    config::{self, parse_duration},
    ledger::Snapshot,
};

/// ETH_P_ALL: packets of every protocol, in both directions.
const EVERY_PROTOCOL: u16 = 3;
/// The largest packet that the kernel joins from segments, with a margin.
const PACKET_OCTETS: usize = 1 << 18;
/// 8 MiB: packets that wait while this process does not run.
const WAITING_OCTETS: usize = 8 << 20;
/// 100 ms: how often the end is looked for on a quiet wire.
const QUIET: Duration = Duration::from_millis(100);
/// 1 h: the longest capture.
const LONGEST: Duration = Duration::from_secs(3600);
/// More packets than wait in the socket's buffer.
const PACKETS_MAX: usize = 100_000;
/// The longest list of ports: a jump of the filter reaches 255 instructions.
const PORTS_MAX: usize = 16;

/// The options of `dotd verify`.
#[derive(Debug, Args)]
pub(super) struct VerifyArguments {
    /// Ports to look at [default: those of listen.dot]
    #[arg(value_name = "PORT")]
    ports: Vec<u16>,
    /// Interface to look at [default: all]
    #[arg(long, value_name = "NAME")]
    interface: Option<String>,
    /// Time to look; Ctrl-C ends it earlier
    #[arg(long = "for", value_name = "TIME", default_value = "10s", value_parser = length)]
    length: Duration,
    /// End after this many packets with a payload
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    packets: Option<u64>,
    #[command(flatten)]
    control: ControlArguments,
}

/// The outcome, as `--json` prints it.
#[derive(Debug, Serialize)]
struct Outcome {
    ports: Vec<u16>,
    interface: Option<String>,
    seconds: f64,
    #[serde(flatten)]
    seen: Seen,
    /// Packets of cleartext that XDP dropped meanwhile, before a capture could see them; none: no dotd answered.
    xdp_dropped: Option<u64>,
    /// Whether all that the server sent was TLS, as far as it was judged; none: nothing of it was judged.
    encrypted: Option<bool>,
}

/// Whether all that the server sent was TLS.
fn is_encrypted(seen: &Seen) -> Option<bool> {
    match (seen.server_clear_octets, seen.server_tls_octets) {
        (0, 0) => None,
        (clear, _) => Some(clear == 0),
    }
}

fn length(text: &str) -> Result<Duration, String> {
    let length = parse_duration(text).map_err(|error| error.to_string())?;
    if length.is_zero() || length > LONGEST { Err("from 1ms to 1h".to_owned()) } else { Ok(length) }
}

/// Runs the verb. Exit status 1: the server sent octets in clear.
pub(super) fn run(arguments: VerifyArguments, config: Option<&Path>) -> Result<u8, CliError> {
    let ports = ports(&arguments, config)?;
    let capture = open(&ports, arguments.interface.as_deref())?;
    let control = socket(&arguments.control, config);
    let dropped = || ask::ask::<Snapshot>(&control, "/stats").ok().map(|(_, stats)| xdp_dropped(&stats));
    let before = dropped();
    let is_over = end_at_interrupt()?;
    if !arguments.control.json {
        let length = arguments.length;
        complain(Level::INFO, &format!("verify: looking for {length:?}; Ctrl-C ends it earlier"));
    }
    let (seen, seconds) = look(&capture, &ports, &arguments, &is_over)?;
    let xdp_dropped = before.zip(dropped()).map(|(before, after)| after.saturating_sub(before));
    let encrypted = is_encrypted(&seen);
    let outcome = Outcome { ports, interface: arguments.interface, seconds, seen, xdp_dropped, encrypted };
    if arguments.control.json {
        let text = serde_json::to_string(&outcome).map_err(|error| CliError::Verify(error.to_string()))?;
        print(&format!("{text}\n"))?;
    } else {
        print(&table(&outcome))?;
    }
    Ok(u8::from(encrypted == Some(false)))
}

fn ports(arguments: &VerifyArguments, config: Option<&Path>) -> Result<Vec<u16>, CliError> {
    let mut ports = arguments.ports.clone();
    if ports.is_empty() {
        ports = config::load(config)?.listen.dot.iter().map(|address| address.port()).collect();
    }
    ports.sort_unstable();
    ports.dedup();
    if ports.is_empty() || ports.contains(&0) || ports.len() > PORTS_MAX {
        return Err(CliError::Verify(format!("name between 1 and {PORTS_MAX} ports, each from 1 to 65535")));
    }
    Ok(ports)
}

/// A socket that gets every TCP packet from or to the ports, from its IP header on.
fn open(ports: &[u16], interface: Option<&str>) -> Result<Socket, CliError> {
    let index = match interface {
        Some(name) => Some(
            if_nametoindex(name)
                .map_err(|error| CliError::Verify(format!("interface {name}: {}", error.desc())))?,
        ),
        None => None,
    };
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::PermissionDenied => {
            CliError::Verify("capturing packets takes CAP_NET_RAW: run this as root".to_owned())
        }
        _ => CliError::Verify(format!("cannot capture packets: {error}")),
    };
    let protocol = Protocol::from(i32::from(EVERY_PROTOCOL.to_be()));
    let mut socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(protocol)).map_err(failed)?;
    socket.attach_filter(&filter(ports, index)).map_err(failed)?;
    // Packets from before the filter may be of other interfaces.
    socket.set_nonblocking(true).map_err(failed)?;
    let mut packet = [0; 1];
    for _ in 0..PACKETS_MAX {
        if socket.read(&mut packet).is_err() {
            break;
        }
    }
    socket.set_nonblocking(false).map_err(failed)?;
    socket.set_read_timeout(Some(QUIET)).map_err(failed)?;
    // A smaller buffer loses packets of a busy wire; the outcome says how many octets could not be judged.
    let _ = socket.set_recv_buffer_size(WAITING_OCTETS);
    Ok(socket)
}

/// A classic BPF program that passes TCP over IPv4 and IPv6 from or to these ports, on one interface if one is given.
/// Fragments behind the first have no ports and do not pass.
fn filter(ports: &[u16], interface: Option<u32>) -> Vec<SockFilter> {
    use opcode::{EQUAL, HALF, HALF_AT_X, HEADER_V4, JUMP, OCTET, RETURN, SET, SHIFT_RIGHT, TO_X, WORD};
    let count = ports.len();
    let start = if interface.is_some() { 2 } else { 0 };
    let (v6, port) = (start + 10, start + 13);
    let (drop, accept) = (port + 2 * count + 2, port + 2 * count + 3);
    let mut program: Vec<SockFilter> = Vec::with_capacity(accept + 1);
    // Jumps count from the next instruction; PORTS_MAX keeps them within an octet.
    let mut add = |code, yes: Option<usize>, no: Option<usize>, value| {
        let next = program.len() + 1;
        let jump = |to: Option<usize>| to.map_or(0, |to| u8::try_from(to - next).unwrap_or(u8::MAX));
        program.push(SockFilter::new(code, jump(yes), jump(no), value));
    };
    if let Some(index) = interface {
        add(WORD, None, None, INTERFACE);
        add(EQUAL, None, Some(drop), index);
    }
    add(OCTET, None, None, 0);
    add(SHIFT_RIGHT, None, None, 4);
    add(EQUAL, Some(v6), None, 6);
    add(EQUAL, None, Some(drop), 4);
    add(OCTET, None, None, 9);
    add(EQUAL, None, Some(drop), segment::TCP.into());
    add(HALF, None, None, 6);
    add(SET, Some(drop), None, 0x1fff);
    add(HEADER_V4, None, None, 0);
    add(JUMP, None, None, 3);
    // v6
    add(OCTET, None, None, 6);
    add(EQUAL, None, Some(drop), segment::TCP.into());
    add(TO_X, None, None, 40);
    // port: first the source's, then the destination's.
    for at in [0, 2] {
        add(HALF_AT_X, None, None, at);
        for port in ports {
            add(EQUAL, Some(accept), None, (*port).into());
        }
    }
    add(RETURN, None, None, 0);
    add(RETURN, None, None, u32::MAX);
    program
}

/// The interface's index, as a filter loads it (SKF_AD_OFF + SKF_AD_IFINDEX).
const INTERFACE: u32 = 0xffff_f008;

/// Instructions of classic BPF (linux/bpf_common.h).
mod opcode {
    pub(super) const WORD: u16 = 0x20;
    pub(super) const HALF: u16 = 0x28;
    pub(super) const OCTET: u16 = 0x30;
    pub(super) const HALF_AT_X: u16 = 0x48;
    /// X becomes the length of an IPv4 header.
    pub(super) const HEADER_V4: u16 = 0xb1;
    pub(super) const TO_X: u16 = 0x01;
    pub(super) const SHIFT_RIGHT: u16 = 0x74;
    pub(super) const JUMP: u16 = 0x05;
    pub(super) const EQUAL: u16 = 0x15;
    pub(super) const SET: u16 = 0x45;
    pub(super) const RETURN: u16 = 0x06;
}

/// A flag that Ctrl-C sets, so that what was seen until then is printed.
fn end_at_interrupt() -> Result<Arc<AtomicBool>, CliError> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(CliError::System)?;
    let is_over = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&is_over);
    std::thread::Builder::new()
        .name("interrupt".to_owned())
        .spawn(move || {
            if runtime.block_on(tokio::signal::ctrl_c()).is_ok() {
                flag.store(true, Relaxed);
            }
        })
        .map_err(CliError::System)?;
    Ok(is_over)
}

/// Reads packets until the time has passed, there are enough, or the operator ends it. Returns the seconds too.
fn look(
    capture: &Socket,
    ports: &[u16],
    arguments: &VerifyArguments,
    is_over: &AtomicBool,
) -> Result<(Seen, f64), CliError> {
    let (begun, enough) = (Instant::now(), arguments.packets.unwrap_or(u64::MAX));
    let mut wire = Wire::new(ports.to_vec());
    let mut buffer = vec![0; PACKET_OCTETS];
    let mut take = |wire: &mut Wire| match { capture }.read(&mut buffer) {
        Ok(octets) => {
            wire.packet(buffer.get(..octets).unwrap_or_default());
            Ok(true)
        }
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
            Ok(false)
        }
        Err(error) => Err(CliError::Verify(format!("the capture ended: {error}"))),
    };
    while begun.elapsed() < arguments.length && wire.packets() < enough && !is_over.load(Relaxed) {
        take(&mut wire)?;
    }
    let seconds = begun.elapsed().as_secs_f64();
    // What came before the end and was not read yet belongs to the time that was looked at.
    let _ = capture.set_nonblocking(true);
    for _ in 0..PACKETS_MAX {
        if wire.packets() >= enough || !take(&mut wire)? {
            break;
        }
    }
    Ok((wire.seen(), seconds))
}

/// Packets of cleartext that XDP dropped since dotd started.
fn xdp_dropped(stats: &Snapshot) -> u64 {
    let rows = stats.packets.iter();
    rows.filter(|row| row.verdict == "drop" && row.reason == "cleartext_on_dot").map(|row| row.count).sum()
}

fn table(outcome: &Outcome) -> String {
    let Outcome { seen, ports, .. } = outcome;
    let ports: Vec<_> = ports.iter().map(u16::to_string).collect();
    let on = outcome.interface.as_deref().unwrap_or("all interfaces");
    let mut text = format!(
        "{:.1} s on {on}, port {}: {} packets with a payload, {} connections\n",
        outcome.seconds,
        ports.join(", "),
        seen.packets,
        seen.connections
    );
    let mut records = |what: &str, count: Records| {
        let _ = writeln!(text, "  {what:<34}{:>10} records {:>14} octets", count.records, count.octets);
    };
    records("TLS 1.3", seen.tls13);
    records("TLS 1.2", seen.tls12);
    records("TLS, handshake not captured", seen.tls);
    let mut octets = |what: &str, count: u64| {
        let _ = writeln!(text, "  {what:<34}{:>33} octets", count);
    };
    if seen.proxy_octets > 0 {
        octets("PROXY headers of a load balancer", seen.proxy_octets);
    }
    octets("in clear, from clients", seen.client_clear_octets);
    octets("in clear, from the server", seen.server_clear_octets);
    octets("not judged: begins inside a record", seen.unjudged_octets);
    match outcome.xdp_dropped {
        Some(count) => {
            let _ = writeln!(
                text,
                "  XDP dropped {count} packets of cleartext meanwhile; native XDP drops them before a capture sees them."
            );
        }
        None => text += "  No dotd answered, so what XDP dropped meanwhile is not known.\n",
    }
    text += match (outcome.encrypted, seen.unjudged_octets, seen.client_clear_octets) {
        (Some(false), ..) => "NOT ENCRYPTED: the server sent octets in clear.\n",
        (None, ..) => "Nothing of the server could be judged: look for longer, or while clients connect.\n",
        (Some(true), 1.., _) => {
            "Encrypted, as far as it could be judged: the server sent TLS; open connections were joined inside a record.\n"
        }
        (Some(true), 0, 1..) => {
            "Encrypted: the server sent nothing but TLS. Octets in clear from clients got no answer in clear.\n"
        }
        (Some(true), 0, 0) => "Encrypted: the server sent nothing but TLS.\n",
    };
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: no capture is called encrypted in which nothing of the server was judged. Method: octets in clear, in TLS, and only such as
    /// could not be judged. Covers: C-585
    #[test]
    fn a_verdict_needs_something_judged() {
        let seen = |server_clear_octets, server_tls_octets, unjudged_octets| Seen {
            server_clear_octets,
            server_tls_octets,
            unjudged_octets,
            connections: 1,
            ..Seen::default()
        };
        for (seen, expected, words) in [
            (seen(0, 0, 4000), None, "Nothing of the server"),
            (seen(0, 9, 4000), Some(true), "as far as"),
            (seen(0, 9, 0), Some(true), "nothing but TLS."),
            (seen(1, 9, 0), Some(false), "NOT ENCRYPTED"),
        ] {
            let encrypted = is_encrypted(&seen);
            assert_eq!(encrypted, expected, "{seen:?}");
            let outcome = Outcome {
                ports: vec![853],
                interface: None,
                seconds: 1.0,
                seen,
                xdp_dropped: None,
                encrypted,
            };
            assert!(table(&outcome).contains(words), "{}", table(&outcome));
        }
    }
}
