//! Many queries while everything about dotd changes: no query may be lost.
//!
//! [`scene`] starts two NSDs and dotd behind a veth pair, with XDP → [`changes`] reload, restart backends, renew the
//! certificate and ban, each at its own pace → clients of the load generator ask meanwhile → [`report`] says what was
//! lost and what was done.
//!
//! Never: sends a packet beyond the namespaces that it made; leaves one of them, or a process, behind.

mod changes;
mod report;
mod scene;

use std::{path::PathBuf, time::Duration};

use anyhow::Result;
use clap::{Parser, ValueEnum};

use crate::{
    load::options::seconds,
    peers::{measure_as_root, stage::Programs, write_report},
};
use report::Report;

/// Asks queries for minutes while dotd is reloaded, backends restart, the certificate is renewed and clients are banned.
///
/// Queries fall due at random times (Poisson), over lasting connections and from clients that connect for each query.
/// Every response is checked. One reload in ten has a config that dotd must refuse. The run fails when one query was
/// not answered as expected, one change did not go as it must, or dotd's own ledger does not add up afterwards.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "endurance",
    after_help = "\
EXAMPLES:
    cargo xtask bench endurance                         300,000 queries in 200 seconds, as root
    cargo xtask bench endurance -- --transport tcp
    cargo xtask bench endurance -- --seconds 20 --rate 500

EXIT STATUS:
    0 when nothing was lost, 1 when something was or nothing could be measured (needs root), 130 after Ctrl-C,
    2 for a mistake in the command line."
)]
pub struct Options {
    /// Seconds of the run
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub seconds: u32,
    /// Queries a second over lasting connections
    #[arg(long, default_value_t = 1500, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub rate: u32,
    /// How dotd asks its backends
    #[arg(long, value_enum, default_value_t = Transport::Udp)]
    pub transport: Transport,
    /// Seconds between reloads
    #[arg(long, default_value = "0.4", value_parser = seconds)]
    pub reload_every: Duration,
    /// Seconds between restarts of a backend; the two take turns
    #[arg(long, default_value = "1.7", value_parser = seconds)]
    pub restart_every: Duration,
    /// Seconds between renewals of the certificate
    #[arg(long, default_value = "5", value_parser = seconds)]
    pub renew_every: Duration,
    /// Seconds between bans of clients that do not ask
    #[arg(long, default_value = "1", value_parser = seconds)]
    pub ban_every: Duration,
    /// Our own programs
    #[command(flatten)]
    pub programs: Programs,
    /// Folder for endurance.md and endurance.json; without it nothing is written
    #[arg(long)]
    pub report: Option<PathBuf>,
}

/// `--transport`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Transport {
    /// Datagrams.
    Udp,
    /// A few lasting connections.
    Tcp,
}

impl Transport {
    /// As the config has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        }
    }
}

/// Runs it, prints what was seen, writes the report; `true` when nothing was lost.
///
/// # Errors
/// Not root, or dotd or its backends could not be started.
pub fn run(options: &Options) -> Result<bool> {
    let (machine, seen) =
        measure_as_root("endurance", "namespaces and XDP", |_, keeper| scene::run(options, keeper))?;
    let report = Report { machine, options: options.clone(), seen };
    print!("{}", report.text());
    if let Some(folder) = &options.report {
        write_report(folder, "endurance", &report.markdown(), &report.json())?;
    }
    Ok(report.faults().is_empty())
}
