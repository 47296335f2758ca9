//! One case: the front end under load, and the change in the midst of it.
//!
//! Before: a stage with its backend. After: what clients saw, and how long the change took.
//! Never: makes the change from a thread that ends before the front end: the kernel would end it with that thread.

use std::{
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use clap::Parser;
use nix::{sys::signal::kill, unistd::Pid};

use super::{
    Options,
    cases::{Case, Change, Way},
};
use crate::{
    load::{
        client::Clients,
        options::Options as LoadOptions,
        queries,
        tally::Tally,
        threads::{self, Outcome},
    },
    peers::{
        catalog::Backend,
        stage::{Peer, Stage},
    },
};

/// The result of a case.
pub(super) struct Row {
    pub(super) case: &'static Case,
    pub(super) version: String,
    pub(super) tally: Tally,
    /// From the operator's command to its end; for a restart to the start of the next process.
    pub(super) change: Duration,
}

impl Row {
    /// Connections that could not be made.
    pub(super) fn refused(&self) -> u64 {
        let errors = self.tally.errors.iter().filter(|(what, _)| what.starts_with("connect: "));
        errors.map(|(_, count)| count).sum()
    }

    /// Sessions that the front end closed or cut.
    pub(super) fn closed(&self) -> u64 {
        self.tally.closed_by_server + self.tally.errors.values().sum::<u64>() - self.refused()
    }

    /// Queries that were sent, or due, and never answered.
    pub(super) fn unanswered(&self) -> u64 {
        self.tally.sent.saturating_sub(self.tally.answered)
    }
}

/// Starts the front end, loads it, makes the change, and ends it.
///
/// # Errors
/// It does not start, the change fails, or no load could be made.
pub(super) fn measure(options: &Options, stage: &Stage, case: &'static Case) -> Result<Row> {
    let mut peer = stage.start(case.entry, Backend::Nsd, &[stage.cores().front], &[])?;
    let load = load(options, stage, &peer)?;
    let (queries, clients) = (queries::load(&load)?, Clients::new(&load)?);
    let (outcome, change) = thread::scope(|scope| {
        let load = scope.spawn(|| -> Result<Outcome> { threads::run(&load, queries, &clients) });
        // Lasting connections are opened first, which takes a moment; the change comes well within the load.
        thread::sleep(Duration::from_secs(options.seconds.into()) / 3);
        let change = make(case.change, &mut peer);
        (load.join().map_err(|_| anyhow!("the load panicked")), change)
    });
    let (outcome, change) = (outcome??, change?);
    if let Some(how) = peer.process.ended() {
        bail!("after the change {how}");
    }
    Ok(Row { case, version: peer.version.clone(), tally: outcome.tally, change })
}

/// Makes the change; returns how long it took.
fn make(change: Change, peer: &mut Peer) -> Result<Duration> {
    let begun = Instant::now();
    match change {
        Change::Restart => peer.process.restart()?,
        Change::Reload(way) | Change::Upgrade(way) => tell(way, peer)?,
    }
    Ok(begun.elapsed())
}

fn tell(way: Way, peer: &Peer) -> Result<()> {
    match way {
        Way::Signal(signal) => {
            kill(Pid::from_raw(peer.process.pid().try_into()?), signal).context("it cannot be told")
        }
        Way::Verb(verb) => {
            let (program, arguments) = peer.process.line();
            let config = arguments.last().context("it was started without a config")?;
            let told = Command::new(program).args([verb, "-c", config]).output()?;
            if !told.status.success() {
                bail!("{verb}: {}", String::from_utf8_lossy(&told.stderr).trim());
            }
            Ok(())
        }
    }
}

/// Clients for the time of the case.
fn load(options: &Options, stage: &Stage, peer: &Peer) -> Result<LoadOptions> {
    let words = [
        "dotload".to_owned(),
        peer.address.to_string(),
        "--quiet".to_owned(),
        "--depth=100".to_owned(),
        "--mix=chatty=9,one-shot=1".to_owned(),
        "--pause=0.1".to_owned(),
        format!("--file={}", stage.names().display()),
        format!("--rate={}", options.rate),
        format!("--connections={}", options.connections),
        format!("--seconds={}", options.seconds),
    ];
    Ok(LoadOptions::try_parse_from(words)?)
}
