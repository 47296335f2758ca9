//! A flood of random names below one domain, asked by one client, and its effect on clients that ask for names of that domain which
//! are there.
//!
//! [`CASES`] lists dotd without `[misuse]` and with it → [`scene`] makes two namespaces, starts one dotd at a time, and measures
//! innocent clients alone and beside the flood → [`report`] shows both, and whether the goal was met.
//!
//! Never: sends a packet beyond the namespaces that it made; leaves one of them, or a process, behind.

mod report;
mod scene;

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;

use crate::peers::{
    catalog::{DOTD, Entry},
    measure_as_root,
    stage::Programs,
    write_report,
};
use report::Report;

/// dotd, by what it does about random names; the first does nothing.
static CASES: [Entry; 3] = [
    Entry { name: "off", transport: "udp", config: include_str!("../../misuse/dotd.toml"), ..DOTD },
    Entry { name: "refuse", transport: "udp", config: include_str!("../../misuse/dotd-refuse.toml"), ..DOTD },
    Entry { name: "delay", transport: "udp", config: include_str!("../../misuse/dotd-delay.toml"), ..DOTD },
];

/// A flood of random names below one domain: what innocent clients of the same domain wait, without `[misuse]` and with it.
///
/// Innocents: lasting connections that ask for names that are there at random times, and clients that connect for one query each. The
/// flood: one client address that keeps queries for random names in flight, as many as it gets; at low priority on the innocents' core.
/// dotd has no cache, so each query that it does not refuse reaches the backend.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "misuse",
    after_help = "\
EXAMPLES:
    cargo xtask bench misuse                    build, measure: about 1 minute, as root
    cargo xtask bench misuse -- --seconds 20 --rate 500

EXIT STATUS:
    0 when, with [misuse], no innocent query failed and their p99 stayed within twice that without a flood, 1 when not,
    2 for a mistake in the command line."
)]
pub struct Options {
    /// Seconds of each measurement, without and with the flood
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(2..=600))]
    pub seconds: u32,
    /// Connections of the flood
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub connections: u32,
    /// Queries that it has in flight on each
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub depth: u32,
    /// Queries a second of the innocent clients
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub rate: u32,
    /// Our own programs
    #[command(flatten)]
    pub programs: Programs,
    /// The load generator, for the flood
    #[arg(long, default_value = "target/release/dotload")]
    pub dotload: PathBuf,
    /// Folder for misuse.md and misuse.json; without it nothing is written
    #[arg(long)]
    pub report: Option<PathBuf>,
}

/// Measures each case, prints the table, writes the report; `true` when the goal was met.
///
/// # Errors
/// Not root, or a program could not be started.
pub fn run(options: &Options) -> Result<bool> {
    let (machine, rows) = measure_as_root("misuse", "namespaces", |cores, keeper| {
        scene::measure_all(options, &CASES, cores, keeper)
    })?;
    let report = Report { machine, options: options.clone(), rows };
    print!("{}", report.text());
    if let Some(folder) = &options.report {
        write_report(folder, "misuse", &report.markdown(), &report.json())?;
    }
    Ok(report.is_met())
}
