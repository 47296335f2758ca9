//! `cargo xtask bench`: measures dotd, beside its peers and frame by frame.
//!
//! Before: a clone. After: a table, and a report in benches/report.
//! Holds: the packages that contain each peer. Never: measures anything itself: it builds the programs of `benches` and
//! executes them, or reads their results.

mod micro;
mod policy;

use std::{collections::BTreeSet, os::unix::process::CommandExt, path::Path, process::Command};

use anyhow::{Result, bail};
use clap::Subcommand;

use crate::{
    build::{self, Build},
    command, setup,
};

/// A peer's program and the packages that bring it.
struct Peer {
    program: &'static str,
    packages: &'static [&'static str],
}

const fn peer(program: &'static str, packages: &'static [&'static str]) -> Peer {
    Peer { program, packages }
}

/// The programs with which `bench peers` compares, and the backend of all.
const PEERS: &[Peer] = &[
    peer("stunnel4", &["stunnel4"]),
    peer("haproxy", &["haproxy"]),
    peer("nginx", &["nginx", "libnginx-mod-stream"]),
    peer("dnsdist", &["dnsdist"]),
    peer("unbound", &["unbound"]),
    peer("named", &["bind9"]),
    peer("kresd", &["knot-resolver"]),
    peer("nsd", &["nsd"]),
];

/// Where `bench peers` puts its report.
const REPORT: &str = "benches/report";

/// Arguments of `cargo xtask bench`.
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true, args_conflicts_with_subcommands = true)]
#[command(after_help = "\
EXAMPLES:
    cargo xtask bench peers             beside stunnel, HAProxy, nginx, dnsdist, Unbound, BIND, Knot Resolver
    cargo xtask bench peers --quick     the same in about 2 minutes
    cargo xtask bench attack            a flood of one-query connections on each of them, as root
    cargo xtask bench misuse            what innocent clients wait beside a flood of random names, as root
    cargo xtask bench endurance         300,000 queries under reloads, restarts, renewals and bans: none lost, as root
    cargo xtask bench restart           restart, reload and upgrade each of them: what is lost, and how long clients wait
    cargo xtask bench packaged          the packaged config with XDP and without, as root
    cargo xtask bench policy            a million rules beside Unbound and BIND: memory, time to load, CPU of a query
    cargo xtask bench scale             cost of a query over connections, cached answers, workers
    cargo xtask bench micro             instructions and nanoseconds of each step of a query
    cargo xtask bench --check           fails where a step takes over 5 % more instructions than was committed
    cargo xtask bench xdp               nanoseconds of the XDP program for each kind of frame, CPU time of a SYN, as root

    docs/performance.md says how to read what they write.

EXIT STATUS:
    0 when measured, 1 when not, when an answer was wrong or a check failed, 2 for a mistake in the
    command line.")]
pub(crate) struct Bench {
    #[command(subcommand)]
    what: Option<What>,
    /// Count instructions and compare with benches/report/micro.json, which stays as it is
    #[arg(long)]
    check: bool,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Compare with other front ends: CPU, latency, memory; report in benches/report
    Peers(Peers),
    /// Flood each front end with connections: CPU, and what innocent clients wait; report in benches/report
    Attack(Attack),
    /// Flood dotd with random names of one client: what innocent clients wait; report in benches/report
    Misuse(Misuse),
    /// Ask while everything changes: reloads, restarts of backends, renewals, bans; report in benches/report
    Endurance(Endurance),
    /// Restart, reload and upgrade each front end under load; report in benches/report
    Restart(Restart),
    /// Load the packaged config, with XDP and without; report in benches/report
    Packaged(Packaged),
    /// Load a policy zone of a million rules, and into Unbound and BIND; report in benches/report
    Policy(policy::Policy),
    /// Measure over connections, cached answers and workers; report in benches/report
    Scale(Scale),
    /// Count and time each step of a query; report in benches/report
    Micro(micro::Micro),
    /// Measure the XDP program, frame by frame, and what a SYN of a flood costs the machine
    Xdp,
}

/// Arguments of `cargo xtask bench attack`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
EXAMPLES:
    cargo xtask bench attack                        about 3 minutes
    cargo xtask bench attack --only dotd,haproxy
    cargo xtask bench attack -- --seconds 10 --attackers 200 --addresses 1

EXIT STATUS:
    0 when measured, 1 when not (needs root), 130 after Ctrl-C, 2 for a mistake in the command line.")]
struct Attack {
    /// Only these front ends
    #[arg(long, value_name = "NAME,…")]
    only: Option<String>,
    /// Options of the program, after `--`; `-- --help` lists them
    #[arg(last = true)]
    more: Vec<String>,
}

/// Arguments of `cargo xtask bench misuse`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
EXAMPLES:
    cargo xtask bench misuse                        about 1 minute
    cargo xtask bench misuse -- --seconds 20 --rate 500

EXIT STATUS:
    0 when no innocent query failed and their p99 stayed within twice that without a flood, 1 when not or when
    nothing could be measured (needs root), 130 after Ctrl-C, 2 for a mistake in the command line.")]
struct Misuse {
    /// Options of the program, after `--`; `-- --help` lists them
    #[arg(last = true)]
    more: Vec<String>,
}

/// Arguments of `cargo xtask bench endurance`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
EXAMPLES:
    cargo xtask bench endurance                     200 seconds
    cargo xtask bench endurance -- --transport tcp
    cargo xtask bench endurance -- --seconds 20 --rate 500

EXIT STATUS:
    0 when nothing was lost, 1 when something was or nothing could be measured (needs root), 130 after Ctrl-C,
    2 for a mistake in the command line.")]
struct Endurance {
    /// Options of the program, after `--`; `-- --help` lists them
    #[arg(last = true)]
    more: Vec<String>,
}

/// Arguments of `cargo xtask bench restart`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
EXAMPLES:
    cargo xtask bench restart                       about 2 minutes
    cargo xtask bench restart --only dotd,haproxy
    cargo xtask bench restart -- --seconds 20 --connections 400

EXIT STATUS:
    0 when measured, 1 when not, 130 after Ctrl-C, 2 for a mistake in the command line.")]
struct Restart {
    /// Only these front ends (stunnel, haproxy, dnsdist, dotd)
    #[arg(long, value_name = "NAME,…")]
    only: Option<String>,
    /// Options of the program, after `--`; `-- --help` lists them
    #[arg(last = true)]
    more: Vec<String>,
}

/// Arguments of `cargo xtask bench packaged`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
EXAMPLES:
    cargo xtask bench packaged                      about 1 minute
    cargo xtask bench packaged -- --rounds 11 --seconds 5

EXIT STATUS:
    0 when every query was answered, 1 when not (needs root), 130 after Ctrl-C, 2 for a mistake in the command line.")]
struct Packaged {
    /// Options of the program, after `--`; `-- --help` lists them
    #[arg(last = true)]
    more: Vec<String>,
}

/// Arguments of `cargo xtask bench scale`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
EXAMPLES:
    cargo xtask bench scale                         about 2 minutes
    cargo xtask bench scale -- --only cache --entries-max 10000000

EXIT STATUS:
    0 when every query was answered, 1 when not, 130 after Ctrl-C, 2 for a mistake in the command line.")]
struct Scale {
    /// Options of the program, after `--`; `-- --help` lists them
    #[arg(last = true)]
    more: Vec<String>,
}

/// Arguments of `cargo xtask bench peers`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
    Installs the peers from apt without starting their services (as root), builds dotd and the load
    generator with all optimisation, starts every peer on loopback with the configs of benches/peers
    before one NSD (or a backend of ours that coalesces), one worker each on one core, and gives all
    the same work in turn. Peers that
    cannot be had are left out, and the report says so.

    Options after `--` go to the program itself; `-- --help` lists them. `-- --dotd PATH` measures another
    dotd than the one that was just built.

EXAMPLES:
    cargo xtask bench peers                             about 15 minutes
    cargo xtask bench peers --quick                     about 2 minutes
    cargo xtask bench peers --only dotd,floor,nginx
    cargo xtask bench peers --work w10x100,c10x100 -- --seconds 10 --rounds 5
    cargo xtask bench peers --work open --rate 10000    the open loop at another rate

EXIT STATUS:
    0 when every answer was right, 1 when not or when nothing could be measured, 130 after Ctrl-C,
    2 for a mistake in the command line.")]
struct Peers {
    /// One short round, without counting system calls
    #[arg(long)]
    quick: bool,
    /// Only these peers
    #[arg(long, value_name = "NAME,…")]
    only: Option<String>,
    /// Only this work (w100x1, w1000x1, w100x10, w10x100, c10x100, hsfull, hsres, open5k, open)
    #[arg(long, value_name = "WORK,…")]
    work: Option<String>,
    /// Queries a second of the work `open` [default: 20000]
    #[arg(long)]
    rate: Option<u32>,
    /// Install nothing
    #[arg(long)]
    no_setup: bool,
    /// Options of the program, after `--`
    #[arg(last = true)]
    more: Vec<String>,
}

/// Sets up, builds, and executes the program that measures in place of this one. Returns only when that fails, or after
/// counting instructions.
///
/// # Errors
/// Setup or the build failed, the program did not start, or a check failed.
pub(crate) fn run(root: &Path, arguments: &Bench) -> Result<()> {
    match &arguments.what {
        Some(What::Peers(arguments)) => peers(root, arguments),
        Some(What::Attack(arguments)) => attack(root, arguments),
        Some(What::Misuse(arguments)) => misuse(root, arguments),
        Some(What::Endurance(arguments)) => endurance(root, arguments),
        Some(What::Restart(arguments)) => restart(root, arguments),
        Some(What::Scale(arguments)) => become_program(dotbench(root, "scale")?.args(&arguments.more)),
        Some(What::Policy(arguments)) => policy::run(root, arguments),
        Some(What::Packaged(arguments)) => packaged(root, arguments),
        Some(What::Micro(arguments)) => micro::run(root, arguments),
        Some(What::Xdp) => xdp(root),
        None if arguments.check => micro::check(root),
        None => bail!("nothing to do: see `cargo xtask bench --help`"),
    }
}

fn peers(root: &Path, arguments: &Peers) -> Result<()> {
    if !arguments.no_setup {
        install()?;
    }
    let mut command = dotbench(root, "peers")?;
    command.args(arguments.quick.then_some("--quick"));
    command.args(arguments.only.iter().flat_map(|only| ["--only", only]));
    command.args(arguments.work.iter().flat_map(|work| ["--work", work]));
    command.args(arguments.rate.iter().flat_map(|rate| ["--rate".to_owned(), rate.to_string()]));
    become_program(command.args(&arguments.more))
}

fn attack(root: &Path, arguments: &Attack) -> Result<()> {
    install()?;
    let mut command = dotbench(root, "attack")?;
    command.arg("--dotload").arg(build::target(root).join("release/dotload"));
    command.args(arguments.only.iter().flat_map(|only| ["--only", only]));
    become_program(command.args(&arguments.more))
}

fn misuse(root: &Path, arguments: &Misuse) -> Result<()> {
    install()?;
    let mut command = dotbench(root, "misuse")?;
    command.arg("--dotload").arg(build::target(root).join("release/dotload"));
    become_program(command.args(&arguments.more))
}

fn endurance(root: &Path, arguments: &Endurance) -> Result<()> {
    install()?;
    become_program(dotbench(root, "endurance")?.args(&arguments.more))
}

fn packaged(root: &Path, arguments: &Packaged) -> Result<()> {
    install()?;
    become_program(dotbench(root, "packaged")?.args(&arguments.more))
}

fn restart(root: &Path, arguments: &Restart) -> Result<()> {
    install()?;
    let mut command = dotbench(root, "restart")?;
    command.args(arguments.only.iter().flat_map(|only| ["--only", only]));
    become_program(command.args(&arguments.more))
}

/// Builds dotd and all programs that measure; the command line of this verb of `dotbench`, with its report.
fn dotbench(root: &Path, verb: &str) -> Result<Command> {
    let dotd = build::run(root, &Build { release: true, pgo: false })?;
    let mut command = program(root, verb, &dotd)?;
    command.arg("--report").arg(root.join(REPORT));
    Ok(command)
}

/// Builds all programs that measure; the command line of this verb of `dotbench` for this dotd.
///
/// # Errors
/// The build failed.
pub(crate) fn program(root: &Path, verb: &str, dotd: &Path) -> Result<Command> {
    build_benches(root, &["dotbench", "dotload", "floor", "responder"])?;
    let folder = build::target(root).join("release");
    let mut command = Command::new(folder.join("dotbench"));
    command.arg(verb).arg("--dotd").arg(dotd).arg("--floor").arg(folder.join("floor"));
    command.arg("--responder").arg(folder.join("responder"));
    Ok(command)
}

fn xdp(root: &Path) -> Result<()> {
    setup::ensure(setup::Wants::default())?;
    build_benches(root, &["xdp", "xdp_flood"])?;
    let folder = build::target(root).join("release");
    command::run(&mut Command::new(folder.join("xdp")))?;
    become_program(&mut Command::new(folder.join("xdp_flood")))
}

fn build_benches(root: &Path, programs: &[&str]) -> Result<()> {
    let mut cargo = build::release::cargo(root, &build::target(root), build::release::Library::Machines)?;
    cargo.args(["--package", "dot-benches"]);
    cargo.args(programs.iter().flat_map(|program| ["--bin", program]));
    command::run(&mut cargo)
}

/// Ctrl-C and TERM are the program's own from here on.
fn become_program(program: &mut Command) -> Result<()> {
    let error = command::without_cargo(program).exec();
    bail!("cannot start {}: {error}", program.get_program().to_string_lossy())
}

/// Installs the packages of missing peers, without starting their services.
fn install() -> Result<()> {
    let missing = missing(setup::is_command);
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.iter().cloned().collect::<Vec<_>>().join(" ");
    println!("bench: to install: {names}");
    if setup::is_root() {
        return setup::install_packages(&missing);
    }
    println!("bench: apt needs root and you are an ordinary user; what is missing is left out. As root:");
    println!(
        "    cargo xtask bench peers    (installs without starting services; plain apt-get would start them)"
    );
    Ok(())
}

/// The packages of all peers whose program is not here.
fn missing(is_command: impl Fn(&str) -> bool) -> BTreeSet<String> {
    let absent = PEERS.iter().filter(|peer| !is_command(peer.program));
    absent.flat_map(|peer| peer.packages).map(|name| (*name).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: only missing packages are installed, with those that belong to them. Method: machines that lack one.
    #[test]
    fn names_missing_packages() {
        assert!(missing(|_| true).is_empty());
        let names: Vec<String> = missing(|name| name != "nginx").into_iter().collect();
        assert_eq!(names, ["libnginx-mod-stream", "nginx"]);
        assert_eq!(missing(|_| false).len(), PEERS.len() + 1);
    }
}
