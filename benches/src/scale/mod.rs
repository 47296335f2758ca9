//! The cost of a query with more connections, cached answers or workers.
//!
//! [`steps`] start dotd (and the floor) for each count and load it → [`report`] shows the cost over the count.
//!
//! Never: opens more connections than the limit on files allows; the report names counts that were not tried.

pub mod report;
pub mod steps;

use std::{net::Ipv4Addr, path::PathBuf};

use anyhow::{Result, bail};
use clap::{Parser, ValueEnum};
use nix::sys::resource::{Resource, getrlimit};

use crate::peers::{
    catalog::Backend,
    machine::{self, Cores, Machine},
    process::Keeper,
    stage::{Programs, Stage},
    write_report,
};
use report::Report;

/// Files beside one for each connection.
const OTHER_FILES: u64 = 1000;

/// Cost of a query over counts: each ten times the one before.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "scale",
    after_help = "\
EXAMPLES:
    cargo xtask bench scale                                         about 2 minutes
    cargo xtask bench scale -- --connections-max 100000 --entries-max 10000000     half an hour, 12 GiB
    cargo xtask bench scale -- --only workers

EXIT STATUS:
    0 when every query was answered, 1 when not or when nothing could be measured, 2 for a mistake in the
    command line."
)]
pub struct Options {
    /// Only this
    #[arg(long, value_enum, value_delimiter = ',')]
    pub only: Vec<Over>,
    /// Most connections; lowered to what RLIMIT_NOFILE allows
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(10..=100_000))]
    pub connections_max: u32,
    /// Most cached answers
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1000..=10_000_000))]
    pub entries_max: u32,
    /// Most workers; two cores show one and two
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub workers_max: u32,
    /// Seconds of each load
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub seconds: u32,
    /// Our own programs
    #[command(flatten)]
    pub programs: Programs,
    /// Folder for scale.md, scale.json and plots; without it nothing is written
    #[arg(long)]
    pub report: Option<PathBuf>,
}

/// The quantity that grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Over {
    /// Connections, each with one query in flight.
    Connections,
    /// Answers in the cache.
    Cache,
    /// Workers, before the same load.
    Workers,
}

/// Measures all, prints the table, writes the report; `true` when every query was answered.
///
/// # Errors
/// Nothing could be started.
pub fn run(options: &Options) -> Result<bool> {
    let cores = Cores::choose()?;
    let keeper = Keeper::watch()?;
    let backends = [Backend::Nsd, Backend::Coalescing];
    let stage = Stage::build(&options.programs, &backends, Ipv4Addr::LOCALHOST, cores, &keeper)?;
    let own = machine::own_cores()?;
    machine::pin(cores.load)?;
    let mut machine = Machine::look(cores);
    let is_wanted = |over: Over| options.only.is_empty() || options.only.contains(&over);
    let mut points = Vec::new();
    let mut left_out = Vec::new();
    for over in [Over::Connections, Over::Cache, Over::Workers] {
        if is_wanted(over) {
            let most = most(options, over, own.len());
            steps::measure(options, &stage, over, most, &own, &mut points, &mut left_out);
        }
    }
    machine.look_again();
    drop(stage);
    if points.is_empty() {
        bail!("nothing could be measured: {}", left_out.join("; "));
    }
    let report = Report { machine, seconds: options.seconds, points, left_out };
    print!("{}", report.text());
    if let Some(folder) = &options.report {
        write_report(folder, "scale", &report.markdown(), &report.json())?;
        report.draw(folder)?;
    }
    Ok(report.points.iter().all(|point| point.faults == 0))
}

fn most(options: &Options, over: Over, cores: usize) -> u32 {
    match over {
        Over::Connections => {
            let files = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
            let files = u32::try_from(files.saturating_sub(OTHER_FILES)).unwrap_or(u32::MAX);
            if files < options.connections_max {
                eprintln!("scale: RLIMIT_NOFILE allows {files} of {} connections", options.connections_max);
            }
            options.connections_max.min(files)
        }
        Over::Cache => options.entries_max,
        Over::Workers => options.workers_max.min(u32::try_from(cores).unwrap_or(u32::MAX)),
    }
}
