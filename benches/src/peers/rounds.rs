//! The rounds: every kind of work, every peer in turn, so that other work of the machine affects all of them alike.
//!
//! Before: peers that answer. After: a [`Run`] for each load. Never: lets two loads run at once.

use std::{thread, time::Duration};

use anyhow::{Result, bail};
use clap::Parser;

use super::{
    machine::CpuTime,
    options::{Options, Pace},
    stage::{Peer, Stage},
    workloads::Work,
};
use crate::load::{
    client::Clients,
    options::Options as LoadOptions,
    queries,
    threads::{self, Outcome},
};

/// Closed connections are put away before the next peer has the core.
const SETTLE: Duration = Duration::from_millis(150);
const NANOSECONDS_PER_MICROSECOND: f64 = 1e3;

/// One load on one peer.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) peer: &'static str,
    pub(crate) work: &'static Work,
    /// The result, or the reason why it could not be measured.
    pub(crate) figures: Result<Figures, String>,
}

/// The results of one load; times in µs.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Figures {
    /// Front end's CPU for each answered query.
    pub(crate) cpu_us: f64,
    /// The part of it in the program, 0 to 1.
    pub(crate) user_share: f64,
    /// The load generator's own CPU for each answered query.
    pub(crate) own_cpu_us: f64,
    /// Context switches of the front end for each answered query.
    pub(crate) voluntary: f64,
    pub(crate) involuntary: f64,
    pub(crate) queries_per_second: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    pub(crate) answered: u64,
    /// Queries that were not answered as expected, and responses to nothing.
    pub(crate) faults: u64,
    /// The part of the handshakes that were resumed, 0 to 1.
    pub(crate) resumed_share: f64,
    /// The part of the front end's core that other processes used, 0 to 1.
    pub(crate) others_share: f64,
    /// Open loop: the part of the offered rate that was answered, 0 to about 1; else 1.
    pub(crate) reached: f64,
    /// Open loop: how late the load generator was to send, at its 99th percentile; else 0.
    pub(crate) lag_p99_us: f64,
}

/// System calls of one peer at one kind of work.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Counted {
    pub(crate) peer: &'static str,
    pub(crate) work: &'static Work,
    /// For each answered query.
    pub(crate) calls: f64,
}

/// Loads all, round by round.
pub(crate) fn run_all(pace: Pace, works: &[&'static Work], stage: &Stage, peers: &[Peer]) -> Vec<Run> {
    let mut runs = Vec::new();
    for round in 0..pace.rounds {
        for work in works {
            let mut turn: Vec<&Peer> = peers.iter().filter(|peer| peer.backend == work.backend).collect();
            // Each round begins with another peer, so that none always follows the same one.
            let first = round as usize % turn.len().max(1);
            turn.rotate_left(first);
            for peer in turn {
                thread::sleep(SETTLE);
                let figures = run(stage, peer, work, pace).map_err(|why| format!("{why:#}"));
                tell(round, pace.rounds, work, peer, &figures);
                runs.push(Run { peer: peer.entry.name, work, figures });
            }
        }
    }
    runs
}

/// Counts system calls in loads of their own, a second each: the count slows what it counts. A peer that cannot be
/// counted is left out, with a line on stderr.
pub(crate) fn count_calls(
    options: &Options,
    works: &[&'static Work],
    stage: &Stage,
    peers: &[Peer],
) -> Vec<Counted> {
    let pace = Pace { duration: Duration::from_secs(1), ..options.pace() };
    let mut counted = Vec::new();
    for work in works.iter().copied().filter(|work| work.counts_calls) {
        for peer in peers.iter().filter(|peer| peer.backend == work.backend) {
            thread::sleep(SETTLE);
            let outcome = load(stage, peer, work, pace, &["--server-calls"]);
            let name = peer.entry.name;
            match outcome.map(|outcome| (outcome.calls, outcome.tally.answered)) {
                Ok((Some(calls), answered)) if answered > 0 => {
                    let calls = calls as f64 / answered as f64;
                    eprintln!("calls   {:<9}{name:<16}{calls:8.2} a query", work.name);
                    counted.push(Counted { peer: name, work, calls });
                }
                Ok(_) => eprintln!("peers: {name}: no query was answered while system calls were counted"),
                Err(why) => {
                    eprintln!("peers: {why:#}");
                    return counted;
                }
            }
        }
    }
    counted
}

/// One load, with these words beside the work's own.
fn load(stage: &Stage, peer: &Peer, work: &Work, pace: Pace, more: &[&str]) -> Result<Outcome> {
    let names = stage.names();
    let mut words = vec![
        "dotload".to_owned(),
        peer.address.to_string(),
        format!("--seconds={}", pace.duration.as_secs_f64()),
        format!("--file={}", names.display()),
        format!("--server-pid={}", peer.process.pid()),
        "--expect=NOERROR".to_owned(),
        "--quiet".to_owned(),
    ];
    words.extend(work.is_at_rate.then(|| format!("--rate={}", pace.rate)));
    words.extend(work.arguments.iter().chain(more).map(|word| (*word).to_owned()));
    let options = LoadOptions::try_parse_from(words)?;
    let clients = Clients::new(&options)?;
    threads::run(&options, queries::load(&options)?, &clients)
}

fn run(stage: &Stage, peer: &Peer, work: &Work, pace: Pace) -> Result<Figures> {
    let before = CpuTime::of(stage.cores().front);
    let outcome = load(stage, peer, work, pace, &[])?;
    let after = CpuTime::of(stage.cores().front);
    let mut figures = figures(&outcome, work)?;
    let used = outcome.server.as_ref().map(|usage| usage.total().as_secs_f64()).unwrap_or_default();
    figures.others_share = after.others_share(before, used);
    if work.is_at_rate {
        figures.reached = figures.queries_per_second / f64::from(pace.rate);
        figures.lag_p99_us = outcome.tally.lag.value_at_quantile(0.99) as f64 / NANOSECONDS_PER_MICROSECOND;
    }
    Ok(figures)
}

fn figures(outcome: &Outcome, work: &Work) -> Result<Figures> {
    let tally = &outcome.tally;
    let (Some(server), true) = (&outcome.server, tally.answered > 0) else {
        bail!("no query was answered: {:?}", tally.errors);
    };
    let answered = tally.answered as f64;
    let total = server.total().as_secs_f64();
    let latency = if work.is_handshake { &tally.handshake } else { &tally.latency };
    let quantile = |quantile| latency.value_at_quantile(quantile) as f64 / NANOSECONDS_PER_MICROSECOND;
    let handshakes = (tally.handshakes_full + tally.handshakes_resumed).max(1);
    Ok(Figures {
        cpu_us: total * 1e6 / answered,
        user_share: if total > 0.0 { server.user.as_secs_f64() / total } else { 0.0 },
        own_cpu_us: outcome.own.total().as_secs_f64() * 1e6 / answered,
        voluntary: server.switches.voluntary as f64 / answered,
        involuntary: server.switches.involuntary as f64 / answered,
        queries_per_second: answered / outcome.elapsed.as_secs_f64().max(f64::MIN_POSITIVE),
        p50_us: quantile(0.5),
        p99_us: quantile(0.99),
        p999_us: quantile(0.999),
        answered: tally.answered,
        faults: (tally.sent - tally.answered) + tally.unknown_id,
        resumed_share: tally.handshakes_resumed as f64 / handshakes as f64,
        others_share: 0.0,
        reached: 1.0,
        lag_p99_us: 0.0,
    })
}

fn tell(round: u32, rounds: u32, work: &Work, peer: &Peer, figures: &Result<Figures, String>) {
    let name = peer.entry.name;
    let begin = format!("{}/{rounds}  {:<9}{name:<16}", round + 1, work.name);
    match figures {
        Ok(figures) => eprintln!("{begin}{:8.1} µs CPU{:9.0}/s", figures.cpu_us, figures.queries_per_second),
        Err(why) => eprintln!("{begin}{why}"),
    }
}
