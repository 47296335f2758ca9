//! Two namespaces, one dotd at a time, innocent clients alone and beside the flood of random names.
//!
//! Before: the cases. After: a row for each. Holds: the names of the flood.
//! Never: lets two front ends run at once; the namespaces go with their threads, in any case.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use dot_tests::harness::netns::{CLIENT_V4, Network, SERVER_INTERFACE, SERVER_V4};
use serde_json::Value;

use super::Options;
use crate::{
    attack::scene::{CLIENTS, FLOOD_BASE, GRACE, SETTLE, Side, innocents},
    peers::{
        catalog::{Backend, Entry},
        machine::Cores,
        process::{Keeper, Process},
        stage::{Peer, Stage},
    },
};

/// Names of the flood: more than it asks for in a window, so that none is asked twice there.
const NAMES: u32 = 400_000;
/// The flood begins before the innocents are measured: it must be found first.
const AHEAD: Duration = Duration::from_secs(2);

/// One case.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) version: String,
    /// Innocents alone.
    pub(super) quiet: Side,
    /// Innocents beside the flood.
    pub(super) attacked: Side,
    /// Queries of the flood that got a response, a second.
    pub(super) flood_per_second: f64,
    /// The part of them that was REFUSED.
    pub(super) refused_part: f64,
}

/// Measures one case after another.
///
/// # Errors
/// No namespaces, no backend, or a dotd that does not serve.
pub(super) fn measure_all(
    options: &Options,
    cases: &'static [Entry],
    cores: Cores,
    keeper: &Keeper,
) -> Result<Vec<Row>> {
    let network = Network::new();
    network.client.ip(&format!("route add local {CLIENTS} dev lo"));
    network.server.ip(&format!("route add {CLIENTS} via {CLIENT_V4} dev {SERVER_INTERFACE}"));
    let std::net::IpAddr::V4(address) = SERVER_V4 else { bail!("the pair has no IPv4 address") };
    let (programs, keeper_too) = (options.programs.clone(), keeper.clone());
    let stage =
        network.server.run(move || Stage::build(&programs, &[Backend::Nsd], address, cores, &keeper_too))?;
    let names = stage.folder().join("random-names");
    fs::write(&names, random_names())?;
    // Lent to the server's thread and given back by it: programs live in the namespace of the thread that starts them.
    let mut stage = Some(stage);
    let mut rows = Vec::new();
    for case in cases {
        let lent = stage.take().context("the stage is lent to one at a time")?;
        let (lent, peer) = network.server.run(move || {
            let peer = lent.start(case, Backend::Nsd, &[cores.front], &[]);
            (lent, peer)
        });
        let row = measure(options, &network, &lent, &peer?, cores, (keeper, &names))?;
        stage = Some(lent);
        super::report::tell(&row);
        rows.push(row);
    }
    Ok(rows)
}

fn measure(
    options: &Options,
    network: &Network,
    stage: &Stage,
    peer: &Peer,
    cores: Cores,
    (keeper, names): (&Keeper, &Path),
) -> Result<Row> {
    thread::sleep(SETTLE);
    let load = (options.rate, options.seconds);
    let quiet = innocents(load, network, stage, peer, cores)?;
    thread::sleep(SETTLE);
    let log = stage.folder().join("flood.json");
    let flood = flood(options, network, peer, cores, keeper, [names, &log])?;
    thread::sleep(AHEAD);
    let attacked = innocents(load, network, stage, peer, cores)?;
    if let Some(how) = peer.process.ended() {
        bail!("{how} beside the flood");
    }
    let end = Instant::now() + Duration::from_secs(options.seconds.into()) + GRACE;
    while flood.ended().is_none() && Instant::now() < end {
        thread::sleep(Duration::from_millis(50));
    }
    drop(flood);
    let report = fs::read_to_string(&log)?;
    let report: Value = serde_json::from_str(&report).with_context(|| format!("the flood said: {report}"))?;
    let rcodes: Vec<(&str, f64)> = report["rcodes"]
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(name, count)| Some((name.as_str(), count.as_f64()?)))
        .collect();
    let all: f64 = rcodes.iter().map(|(_, count)| count).sum();
    let refused: f64 = rcodes.iter().filter(|(name, _)| *name == "REFUSED").map(|(_, count)| count).sum();
    let seconds = report["elapsed_seconds"].as_f64().unwrap_or_default().max(f64::MIN_POSITIVE);
    Ok(Row {
        name: peer.entry.name,
        version: peer.version.clone(),
        quiet,
        attacked,
        flood_per_second: all / seconds,
        refused_part: refused / all.max(f64::MIN_POSITIVE),
    })
}

/// Starts the flood in the client's namespace; it ends by itself.
fn flood(
    options: &Options,
    network: &Network,
    peer: &Peer,
    cores: Cores,
    keeper: &Keeper,
    [names, log]: [&Path; 2],
) -> Result<Process> {
    let dotload = options.dotload.canonicalize().with_context(|| {
        format!("no {}: build it with `cargo build --release -p dot-benches`", options.dotload.display())
    })?;
    let seconds = options.seconds + u32::try_from(AHEAD.as_secs()).unwrap_or_default() + 1;
    let arguments = [
        "-n10".to_owned(),
        dotload.display().to_string(),
        peer.address.to_string(),
        "--json".to_owned(),
        "--expect=NOERROR,NXDOMAIN,REFUSED".to_owned(),
        format!("--file={}", names.display()),
        format!("--seconds={seconds}"),
        format!("--connections={}", options.connections),
        format!("--depth={}", options.depth),
        "--sources=1".to_owned(),
        format!("--source-base={FLOOD_BASE}"),
    ];
    let (keeper, log): (_, PathBuf) = (keeper.clone(), log.to_path_buf());
    network.client.run(move || Process::start(&keeper, &[cores.load], Path::new("nice"), &arguments, &log))
}

/// Different labels in an order without a pattern, below the domain of the innocents' names.
fn random_names() -> String {
    let mut names = String::new();
    for number in 0..NAMES {
        // An odd multiplier makes each number another one.
        let label = u64::from(number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        // Writing to a string cannot fail.
        let _ = writeln!(names, "x{label:016x}.dotd.test A");
    }
    names
}
