//! The attack itself: two namespaces, one front end at a time, innocent clients alone and during the flood.
//!
//! Before: the front ends. After: a row for each. Holds: the addresses of both kinds of clients.
//! Never: lets two front ends run at once.

use std::{
    net::Ipv4Addr,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::Parser;
use dot_tests::harness::netns::{CLIENT_V4, Network, SERVER_INTERFACE};
use serde_json::Value;

use super::Options;
use crate::{
    load::{
        client::Clients,
        options::Options as LoadOptions,
        population::Population,
        queries,
        threads::{self, Outcome},
    },
    peers::{
        catalog::Entry,
        machine::{self, Cores, CpuTime},
        pair::Pair,
        process::{Keeper, Process},
        stage::{LeftOut, Peer, Programs, Stage},
    },
};

/// Addresses of both kinds of clients, all on the client's side: 198.18.0.0/15 is for such measurements (RFC 2544).
const CLIENTS: &str = "198.18.0.0/15";
pub(crate) const FLOOD_BASE: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
const INNOCENT_BASE: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 1);
/// Innocent clients, one in five of which connects for each query.
const INNOCENTS: u32 = 25;
pub(crate) const SETTLE: Duration = Duration::from_millis(300);
/// The flood begins before the innocents are measured, so that first handshakes meet it too.
const AHEAD: Duration = Duration::from_millis(700);
/// The time by which the flood may exceed its duration.
const GRACE: Duration = Duration::from_secs(20);

/// The results of one measurement; times in µs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Side {
    /// Queries on lasting connections.
    pub p50_us: f64,
    /// Their 99th percentile.
    pub p99_us: f64,
    /// From connect to the end of the handshake.
    pub handshake_p99_us: f64,
    /// Queries that were not answered, and handshakes that failed.
    pub failures: u64,
    /// Cores that the front end had, 0 to its number of threads.
    pub cores: f64,
    /// Busy part of its core, including the kernel's own work.
    pub core_busy: f64,
}

/// One front end.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its name.
    pub name: &'static str,
    /// Its version.
    pub version: String,
    /// Innocents alone.
    pub quiet: Side,
    /// Innocents beside the flood.
    pub attacked: Side,
    /// Handshakes that the flood completed, a second.
    pub flood_per_second: f64,
    /// Attempts of the flood that failed, a second.
    pub refused_per_second: f64,
}

/// Attacks one after another.
///
/// # Errors
/// No namespaces, or no backend.
pub(super) fn attack_all(
    options: &Options,
    wanted: &[&'static Entry],
    cores: Cores,
    keeper: &Keeper,
) -> Result<(Vec<Row>, LeftOut)> {
    let mut pair = field(&options.programs, cores, keeper)?;
    let (mut rows, mut left_out) = (Vec::new(), LeftOut::new());
    for entry in wanted.iter().copied() {
        match pair.with(entry, |network, stage, peer| attack(options, network, stage, peer, cores, keeper)) {
            Ok(row) => {
                super::report::tell(&row);
                rows.push(row);
            }
            Err(why) => {
                eprintln!("attack: {} is left out: {why:#}", entry.name);
                left_out.push((entry.name, format!("{why:#}")));
            }
        }
    }
    Ok((rows, left_out))
}

/// The namespaces, with routes to the addresses of both kinds of clients.
pub(crate) fn field(programs: &Programs, cores: Cores, keeper: &Keeper) -> Result<Pair> {
    let pair = Pair::build(programs, None, cores, keeper)?;
    pair.network().client.ip(&format!("route add local {CLIENTS} dev lo"));
    pair.network().server.ip(&format!("route add {CLIENTS} via {CLIENT_V4} dev {SERVER_INTERFACE}"));
    Ok(pair)
}

fn attack(
    options: &Options,
    network: &Network,
    stage: &Stage,
    peer: &Peer,
    cores: Cores,
    keeper: &Keeper,
) -> Result<Row> {
    thread::sleep(SETTLE);
    let load = (options.rate, options.seconds);
    let quiet = innocents(load, network, stage, peer, cores)?;
    thread::sleep(SETTLE);
    let log = stage.folder().join("flood.json");
    let flood = flood(options, network, peer, cores, keeper, &log)?;
    thread::sleep(AHEAD);
    let attacked = innocents(load, network, stage, peer, cores)?;
    if let Some(how) = peer.process.ended() {
        bail!("{how} under the flood");
    }
    let report = report_of(flood, &log, options.seconds)?;
    let figure = |name: &str| report[name].as_f64().unwrap_or_default();
    let failures: u64 =
        report["errors"].as_object().into_iter().flatten().filter_map(|row| row.1.as_u64()).sum();
    let seconds = figure("elapsed_seconds").max(f64::MIN_POSITIVE);
    Ok(Row {
        name: peer.entry.name,
        version: peer.version.clone(),
        quiet,
        attacked,
        flood_per_second: (figure("handshakes_full") + figure("handshakes_resumed")) / seconds,
        refused_per_second: (failures as f64 + figure("closed_by_server")) / seconds,
    })
}

/// The report of a flood that ends by itself after about so many seconds.
///
/// # Errors
/// It wrote no report.
pub(crate) fn report_of(flood: Process, log: &Path, seconds: u32) -> Result<Value> {
    let end = Instant::now() + Duration::from_secs(seconds.into()) + GRACE;
    while flood.ended().is_none() && Instant::now() < end {
        thread::sleep(Duration::from_millis(50));
    }
    drop(flood);
    let report = std::fs::read_to_string(log)?;
    serde_json::from_str(&report).with_context(|| format!("the flood said: {report}"))
}

/// Starts the flood in the client's namespace; it ends by itself.
fn flood(
    options: &Options,
    network: &Network,
    peer: &Peer,
    cores: Cores,
    keeper: &Keeper,
    log: &Path,
) -> Result<Process> {
    let arguments = [
        "--per-connection=1".to_owned(),
        "--no-resumption".to_owned(),
        "--timeout=1".to_owned(),
        format!("--seconds={}", options.seconds + 1),
        format!("--connections={}", options.attackers),
        format!("--sources={}", options.addresses),
        format!("--source-base={FLOOD_BASE}"),
    ];
    start_flood(&options.dotload, &arguments, network, peer, cores, (keeper, log))
}

/// Starts the load generator in the client's namespace at low priority, with these arguments.
///
/// # Errors
/// It is not built, or does not start.
pub(crate) fn start_flood(
    dotload: &Path,
    arguments: &[String],
    network: &Network,
    peer: &Peer,
    cores: Cores,
    (keeper, log): (&Keeper, &Path),
) -> Result<Process> {
    let dotload = dotload.canonicalize().with_context(|| {
        format!("no {}: build it with `cargo build --release -p dot-benches`", dotload.display())
    })?;
    let (dotload, address) = (dotload.display().to_string(), peer.address.to_string());
    let words = [&["-n10".to_owned(), dotload, address, "--json".to_owned()], arguments].concat();
    let (keeper, log) = (keeper.clone(), log.to_path_buf());
    network.client.run(move || Process::start(&keeper, &[cores.load], Path::new("nice"), &words, &log))
}

/// Innocent clients for the time of a measurement, with this many queries a second.
pub(crate) fn innocents(
    (rate, seconds): (u32, u32),
    network: &Network,
    stage: &Stage,
    peer: &Peer,
    cores: Cores,
) -> Result<Side> {
    let words = [
        "dotload".to_owned(),
        peer.address.to_string(),
        "--quiet".to_owned(),
        "--depth=100".to_owned(),
        "--mix=chatty=4,one-shot=1".to_owned(),
        "--pause=0.5".to_owned(),
        format!("--file={}", stage.names().display()),
        format!("--rate={rate}"),
        format!("--connections={INNOCENTS}"),
        format!("--sources={INNOCENTS}"),
        format!("--source-base={INNOCENT_BASE}"),
        format!("--seconds={seconds}"),
        format!("--server-pid={}", peer.process.pid()),
    ];
    let load = LoadOptions::try_parse_from(words)?;
    let (outcome, before, after) = network.client.run(move || -> Result<(Outcome, CpuTime, CpuTime)> {
        machine::pin(cores.load)?;
        let clients = Clients::new(&load)?;
        let queries = queries::load(&load)?;
        let before = CpuTime::of(cores.front);
        let outcome = threads::run(&load, queries, &clients)?;
        Ok((outcome, before, CpuTime::of(cores.front)))
    })?;
    let tally = &outcome.tally;
    let us = |histogram: &hdrhistogram::Histogram<u64>, quantile| {
        histogram.value_at_quantile(quantile) as f64 / 1e3
    };
    let lasting = &tally.by_population[Population::Chatty as usize];
    if lasting.is_empty() {
        bail!("no innocent client was answered: {:?}", tally.errors);
    }
    let used = outcome.server.as_ref().map(|usage| usage.total().as_secs_f64()).unwrap_or_default();
    Ok(Side {
        p50_us: us(lasting, 0.5),
        p99_us: us(lasting, 0.99),
        handshake_p99_us: us(&tally.handshake, 0.99),
        failures: tally.sent - tally.answered + tally.errors.values().sum::<u64>(),
        cores: used / outcome.elapsed.as_secs_f64().max(f64::MIN_POSITIVE),
        core_busy: after.others_share(before, 0.0),
    })
}
