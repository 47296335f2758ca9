//! Front ends that are restarted, reloaded and upgraded while clients ask: what is lost, and for how long no client gets an answer.
//!
//! [`cases`] lists each front end with each change that it knows → [`scene`] starts it before one NSD, loads it and makes the change
//! meanwhile → [`report`] shows what clients saw.
//!
//! Never: sends a packet beyond loopback; leaves a process behind.

mod cases;
mod report;
mod scene;

use std::{net::Ipv4Addr, path::PathBuf};

use anyhow::Result;
use clap::Parser;

use crate::peers::{
    catalog::Backend,
    machine::{self, Cores, Machine},
    process::Keeper,
    stage::{Programs, Stage},
    write_report,
};
use report::Report;

/// Restarts, reloads and upgrades each front end under load: lost connections, lost queries, the longest wait for an answer.
///
/// Clients: lasting connections, over which queries fall due at random times, and clients that connect for each query. A third of
/// the time into the load the change is made. A query's latency counts from when it was due, so these figures hold the wait of
/// a client that cannot connect.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "restart",
    after_help = "\
EXAMPLES:
    cargo xtask bench restart                       install, build, change each: about 2 minutes
    cargo xtask bench restart --only dotd,haproxy
    cargo xtask bench restart -- --seconds 20 --connections 400

EXIT STATUS:
    0 when measured, 1 when not, 2 for a mistake in the command line."
)]
pub struct Options {
    /// Only these front ends
    #[arg(long, value_delimiter = ',', value_name = "NAME,…")]
    pub only: Vec<String>,
    /// Seconds of the load on each
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(3..=600))]
    pub seconds: u32,
    /// Connections: nine of ten last, the tenth is a client that connects for each query
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(10..=10_000))]
    pub connections: u32,
    /// Queries a second over the lasting connections
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub rate: u32,
    /// Our own programs
    #[command(flatten)]
    pub programs: Programs,
    /// Folder for restart.md and restart.json; without it nothing is written
    #[arg(long)]
    pub report: Option<PathBuf>,
}

/// Changes each, prints the table, writes the report; `true` when something was measured.
///
/// # Errors
/// A name that no front end has, or the backend could not be started.
pub fn run(options: &Options) -> Result<bool> {
    let wanted = cases::wanted(&options.only)?;
    let cores = Cores::choose()?;
    let keeper = Keeper::watch()?;
    let stage = Stage::build(&options.programs, &[Backend::Nsd], Ipv4Addr::LOCALHOST, cores, &keeper)?;
    machine::pin(cores.load)?;
    let mut machine = Machine::look(cores);
    let (mut rows, mut left_out) = (Vec::new(), Vec::new());
    for case in wanted {
        match scene::measure(options, &stage, case) {
            Ok(row) => rows.push(row),
            Err(why) => {
                eprintln!("restart: {}, {}, is left out: {why:#}", case.entry.name, case.change.name());
                left_out.push((case, format!("{why:#}")));
            }
        }
    }
    machine.look_again();
    drop(stage);
    let report = Report { machine, options: options.clone(), rows, left_out };
    print!("{}", report.text());
    if let Some(folder) = &options.report {
        write_report(folder, "restart", &report.markdown(), &report.json())?;
    }
    Ok(!report.rows.is_empty())
}
