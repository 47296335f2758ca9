//! A flood of clients that connect, ask once and close, and its effect on other clients.
//!
//! [`fronts`] lists the front ends → [`scene`] makes two namespaces with a veth pair, so that XDP is native, and starts
//! one front end at a time → innocent clients are measured alone, then during the flood → [`report`] shows both.
//!
//! Never: sends a packet beyond the namespaces that it made; leaves one of them, or a process, behind.

pub mod fronts;
pub mod report;
pub mod scene;

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;

use crate::peers::{measure_as_root, stage::Programs, write_report};
use report::Report;

/// A flood of connections with one query each, from separate addresses: CPU of each front end, and the waiting time of
/// innocent clients.
///
/// Innocents: lasting connections that ask at random times, and clients that connect for one query each. The flood: as
/// many full handshakes as it gets, with one query each, from other addresses; at low priority on the innocents' core,
/// so that their waiting time comes from the front end.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "attack",
    after_help = "\
EXAMPLES:
    cargo xtask bench attack                    install, build, attack each: about 3 minutes, as root
    cargo xtask bench attack --only dotd,haproxy
    cargo xtask bench attack -- --seconds 10 --attackers 200 --addresses 1

EXIT STATUS:
    0 when measured, 1 when not (needs root), 2 for a mistake in the command line."
)]
pub struct Options {
    /// Only these: a name, or the first part of names (`dotd` is `dotd`, `dotd-xdp` and `dotd-cost`)
    #[arg(long, value_delimiter = ',', value_name = "NAME,…")]
    pub only: Vec<String>,
    /// Seconds of each measurement, without and with the flood
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub seconds: u32,
    /// Connections that the flood has open or tries to open at once
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub attackers: u32,
    /// Source addresses of the flood
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    pub addresses: u32,
    /// Queries a second of the innocent clients
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub rate: u32,
    /// Our own programs
    #[command(flatten)]
    pub programs: Programs,
    /// The load generator, for the flood
    #[arg(long, default_value = "target/release/dotload")]
    pub dotload: PathBuf,
    /// Folder for attack.md, attack.json and attack.svg; without it nothing is written
    #[arg(long)]
    pub report: Option<PathBuf>,
}

/// Attacks each, prints the table, writes the report; `true` when something was measured.
///
/// # Errors
/// Not root, a name that no front end has, or nothing could be started.
pub fn run(options: &Options) -> Result<bool> {
    let (machine, (rows, left_out)) = measure_as_root("attack", "namespaces and XDP", |cores, keeper| {
        scene::attack_all(options, &fronts::wanted(&options.only)?, cores, keeper)
    })?;
    let report = Report { machine, options: options.clone(), rows, left_out };
    print!("{}", report.text());
    if let Some(folder) = &options.report {
        write_report(folder, "attack", &report.markdown(), &report.json())?;
        report.draw(&folder.join("attack.svg"))?;
    }
    Ok(!report.rows.is_empty())
}
