//! Two namespaces, NSD at port 53, and one dotd after the other under load.
//!
//! Before: both configs. After: a row for each. Never: lets two run at once.

use std::{fs, thread, time::Duration};

use anyhow::{Context, Result, bail};
use clap::Parser;
use dot_tests::harness::netns::{CLIENT_INTERFACE, Namespace, Network, SERVER_INTERFACE};

use super::{Options, fronts};
use crate::{
    load::{
        client::Clients,
        options::Options as LoadOptions,
        queries,
        threads::{self, Outcome},
    },
    peers::{
        catalog::Entry,
        machine::{self, Cores},
        pair::Pair,
        process::Keeper,
        stage::{Peer, Stage},
    },
};

/// The port of the packaged config's backend.
const BACKEND_PORT: u16 = 53;
const SETTLE: Duration = Duration::from_millis(300);

/// The results of one config: a figure for each round.
#[derive(Clone, Debug, Default)]
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) version: String,
    /// Queries a second.
    pub(super) rates: Vec<f64>,
    /// CPU time of dotd and of the kernel in its name, in µs a query.
    pub(super) costs_us: Vec<f64>,
    /// Queries without an answer.
    pub(super) failures: u64,
}

/// Measures both in each round, the first of a round in turn.
///
/// # Errors
/// No namespaces, no backend, or a dotd that does not start.
pub(super) fn measure_all(options: &Options, cores: Cores, keeper: &Keeper) -> Result<Vec<Row>> {
    // The stage starts NSD on the core of the load. Here dotd and NSD are one server, and share its core.
    let server = Cores { load: cores.front, ..cores };
    let mut pair = Pair::build(&options.programs, Some(BACKEND_PORT), server, keeper)?;
    receive_on(&pair.network().server, SERVER_INTERFACE, cores.front)?;
    receive_on(&pair.network().client, CLIENT_INTERFACE, cores.load)?;
    let entries = fronts::both();
    let mut rows = entries.map(|entry| Row { name: entry.name, ..Row::default() });
    for round in 0..options.rounds {
        let mut turns = [0, 1];
        turns.rotate_left(round as usize % 2);
        for turn in turns {
            let entry: &'static Entry = entries[turn];
            let measured =
                pair.with(entry, |network, stage, peer| measure(options, network, stage, peer, cores));
            let (outcome, version) = measured.with_context(|| entry.name)?;
            add(&mut rows[turn], &outcome, version);
        }
    }
    Ok(rows.into())
}

/// Has the kernel process on this core the packets that come in through an interface (RPS), as a card with one queue would whose
/// interrupt is there. Otherwise a packet over a veth pair is processed on the core of its sender: the load would pay for the judge.
fn receive_on(namespace: &Namespace, interface: &str, core: usize) -> Result<()> {
    let file = format!("/sys/class/net/{interface}/queues/rx-0/rps_cpus");
    // Groups of 32 bits, the lowest one last.
    let mask = format!("{:x}{}", 1_u32 << (core % 32), ",00000000".repeat(core / 32));
    namespace.run(move || fs::write(&file, mask).with_context(|| file.clone()))
}

/// Loads a dotd that runs.
fn measure(
    options: &Options,
    network: &Network,
    stage: &Stage,
    peer: &Peer,
    cores: Cores,
) -> Result<(Outcome, String)> {
    thread::sleep(SETTLE);
    let words = [
        "dotload".to_owned(),
        peer.address.to_string(),
        "--quiet".to_owned(),
        format!("--file={}", stage.names().display()),
        format!("--connections={}", options.connections),
        format!("--depth={}", options.depth),
        format!("--seconds={}", options.seconds),
        format!("--server-pid={}", peer.process.pid()),
    ];
    let load = LoadOptions::try_parse_from(words)?;
    let outcome = network.client.run(move || -> Result<Outcome> {
        machine::pin(cores.load)?;
        let clients = Clients::new(&load)?;
        threads::run(&load, queries::load(&load)?, &clients)
    })?;
    if let Some(how) = peer.process.ended() {
        bail!("{how} under the load");
    }
    Ok((outcome, peer.version.clone()))
}

fn add(row: &mut Row, outcome: &Outcome, version: String) {
    let tally = &outcome.tally;
    let answered = tally.answered.max(1) as f64;
    let used = outcome.server.as_ref().map(|usage| usage.total().as_secs_f64()).unwrap_or_default();
    row.version = version;
    row.rates.push(tally.answered as f64 / outcome.elapsed.as_secs_f64().max(f64::MIN_POSITIVE));
    row.costs_us.push(used * 1e6 / answered);
    row.failures += tally.sent - tally.answered + tally.errors.values().sum::<u64>();
}
