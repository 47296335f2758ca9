//! Two namespaces, one dotd at a time, innocent clients alone and beside the flood of random names.
//!
//! Before: the cases. After: a row for each. Holds: the names of the flood.
//! Never: lets two front ends run at once; shows a flood that asked nothing.

use std::{fmt::Write as _, fs, path::Path, thread, time::Duration};

use anyhow::{Result, bail};
use dot_tests::harness::netns::Network;

use super::Options;
use crate::{
    attack::scene::{FLOOD_BASE, SETTLE, Side, field, innocents, report_of, start_flood},
    peers::{
        catalog::Entry,
        machine::Cores,
        process::{Keeper, Process},
        stage::{Peer, Stage},
    },
};

/// Names of the flood: more than it asks for in a second, on the machines of docs/performance.md; then they come again, to a dotd without
/// a cache.
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
    let mut pair = field(&options.programs, cores, keeper)?;
    let names = pair.folder().join("random-names");
    fs::write(&names, random_names())?;
    let mut rows = Vec::new();
    for case in cases {
        let row = pair.with(case, |network, stage, peer| {
            measure(options, network, stage, peer, cores, (keeper, &names))
        })?;
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
    let report = report_of(flood, &log, options.seconds)?;
    let rcodes: Vec<(&str, f64)> = report["rcodes"]
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(name, count)| Some((name.as_str(), count.as_f64()?)))
        .collect();
    let all: f64 = rcodes.iter().map(|(_, count)| count).sum();
    if all == 0.0 {
        bail!("the flood got no response: {report}");
    }
    let refused: f64 = rcodes.iter().filter(|(name, _)| *name == "REFUSED").map(|(_, count)| count).sum();
    let seconds = report["elapsed_seconds"].as_f64().unwrap_or_default().max(f64::MIN_POSITIVE);
    Ok(Row {
        name: peer.entry.name,
        version: peer.version.clone(),
        quiet,
        attacked,
        flood_per_second: all / seconds,
        refused_part: refused / all,
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
    let seconds = options.seconds + u32::try_from(AHEAD.as_secs()).unwrap_or_default() + 1;
    let arguments = [
        "--expect=NOERROR,NXDOMAIN,REFUSED".to_owned(),
        format!("--file={}", names.display()),
        format!("--seconds={seconds}"),
        format!("--connections={}", options.connections),
        format!("--depth={}", options.depth),
        "--sources=1".to_owned(),
        format!("--source-base={FLOOD_BASE}"),
    ];
    start_flood(&options.dotload, &arguments, network, peer, cores, (keeper, log))
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
