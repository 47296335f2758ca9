//! One response policy zone of many names, in dotd, Unbound and BIND, one after the other: memory, time to load, and CPU of a query.
//!
//! [`CASES`] has the three → [`scene`] writes the zone, starts each with one rule and with all, and asks for names with a rule and
//! without → [`report`] shows them, and whether dotd stayed within what is promised.
//!
//! Never: lets two of them run at once; leaves a process or a file behind.

mod report;
mod scene;

use std::{net::Ipv4Addr, path::PathBuf};

use anyhow::Result;
use clap::Parser;

use crate::peers::{
    catalog::{Backend, DOTD, Entry, Kind, Program},
    machine::{self, Cores, Machine},
    process::Keeper,
    stage::{Programs, Stage},
    write_report,
};
use report::Report;

/// The programs that are compared; the first is ours.
static CASES: [Entry; 3] = [
    Entry {
        name: "dotd",
        kind: Kind::OursCached,
        transport: "udp",
        config: include_str!("../../policy/dotd.toml"),
        ..DOTD
    },
    Entry {
        name: "unbound",
        kind: Kind::Answers,
        program: Program::Installed("unbound"),
        arguments: &["-d", "-c", "@CONFIG@"],
        version: &["-V"],
        config: include_str!("../../policy/unbound.conf"),
        transport: "none",
        ..DOTD
    },
    Entry {
        name: "named",
        kind: Kind::Answers,
        program: Program::Installed("named"),
        arguments: &["-g", "-n", "1", "-c", "@CONFIG@"],
        version: &["-v"],
        config: include_str!("../../policy/named.conf"),
        transport: "none",
        ..DOTD
    },
];

/// One response policy zone of a million names: memory, time to load and CPU of a query in dotd, Unbound and BIND.
///
/// Each program runs alone, with a zone of one rule and then with all of them, with one worker on one core; clients, and the server that
/// dotd asks, have the other core. The zone has loaded when the name of its last rule gets NXDOMAIN. Memory is PSS, of all processes of
/// the program; CPU time counts from the program's start.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "policy",
    after_help = "\
EXAMPLES:
    cargo xtask bench policy                        install, build, measure: about 2 minutes
    cargo xtask bench policy --only dotd,unbound
    cargo xtask bench policy -- --rules 100000 --seconds 10

EXIT STATUS:
    0 when dotd answered every query as its rule says and its million rules took at most 120 MB and 5 s of CPU, 1 when
    not or when nothing was measured, 2 for a mistake in the command line."
)]
pub struct Options {
    /// Rules of the zone
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1000..=16_000_000))]
    pub rules: u32,
    /// Seconds of each load
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub seconds: u32,
    /// Only these programs
    #[arg(long, value_delimiter = ',', value_parser = ["dotd", "unbound", "named"])]
    pub only: Vec<String>,
    /// Our own programs
    #[command(flatten)]
    pub programs: Programs,
    /// Folder for policy.md and policy.json; without it nothing is written
    #[arg(long)]
    pub report: Option<PathBuf>,
}

/// Measures each program, prints the table, writes the report; `true` when every query was answered and the goal was met.
///
/// # Errors
/// No program could be started.
pub fn run(options: &Options) -> Result<bool> {
    let cores = Cores::choose()?;
    let keeper = Keeper::watch()?;
    let mut stage = Stage::build(&options.programs, &[Backend::Nsd], Ipv4Addr::LOCALHOST, cores, &keeper)?;
    machine::pin(cores.load)?;
    let mut machine = Machine::look(cores);
    let (rows, left_out) = scene::measure_all(options, &CASES, &mut stage)?;
    machine.look_again();
    drop(stage);
    let report = Report { machine, options: options.clone(), rows, left_out };
    print!("{}", report.text());
    if let Some(folder) = &options.report {
        write_report(folder, "policy", &report.markdown(), &report.json())?;
    }
    Ok(report.is_met())
}
