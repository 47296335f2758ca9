//! The config that packages install, under load, with XDP as it ships and with XDP off: what XDP costs those whom it protects.
//!
//! [`fronts`] makes both configs from the packaged file → [`scene`] makes two namespaces with a veth pair, NSD on
//! 127.0.0.1:53 as the file has it, and loads one dotd after the other → [`report`] shows both, and their ratio.
//!
//! Never: sends a packet beyond the namespaces that it made; leaves one of them, or a process, behind.

mod fronts;
mod report;
mod scene;

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;

use crate::peers::{measure_as_root, stage::Programs, write_report};
use report::Report;

/// The packaged config under load, with XDP as it ships and with XDP off, in turns: queries a second and CPU of a query.
///
/// One core is the server: dotd, NSD, which dotd asks at 127.0.0.1:53, and the kernel for what comes in. Clients have another core,
/// and ask as fast as they are answered. The figures are medians over the rounds; the goal of dotd is at least 0.97 of the queries
/// without XDP.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "packaged",
    after_help = "\
EXAMPLES:
    cargo xtask bench packaged                      install, build, measure: about 1 minute, as root
    cargo xtask bench packaged -- --rounds 11 --seconds 5
    cargo xtask bench packaged -- --connections 1000 --depth 1

EXIT STATUS:
    0 when every query was answered, 1 when not or when nothing was measured (needs root),
    2 for a mistake in the command line."
)]
pub struct Options {
    /// Rounds, each with both configs
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// Seconds of the load on each
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub seconds: u32,
    /// Connections; by default the packaged limits let one client have 500
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=500))]
    pub connections: u32,
    /// Queries in flight on each
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=200))]
    pub depth: u32,
    /// Our own programs
    #[command(flatten)]
    pub programs: Programs,
    /// Folder for packaged.md and packaged.json; without it nothing is written
    #[arg(long)]
    pub report: Option<PathBuf>,
}

/// Measures both, prints the table, writes the report; `true` when every query was answered.
///
/// # Errors
/// Not root, or one of them could not be started.
pub fn run(options: &Options) -> Result<bool> {
    let (machine, rows) = measure_as_root("packaged", "namespaces and XDP", |cores, keeper| {
        scene::measure_all(options, cores, keeper)
    })?;
    let report = Report { machine, options: options.clone(), rows };
    print!("{}", report.text());
    if let Some(folder) = &options.report {
        write_report(folder, "packaged", &report.markdown(), &report.json())?;
    }
    Ok(report.rows.iter().all(|row| row.failures == 0))
}
