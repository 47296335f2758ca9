//! dotd beside the front ends that people use today: the same work, the same backend, the same core, one table.
//!
//! [`options`] say how long → [`catalog`] knows each peer → [`stage`] makes certificate, zone, backend and
//! configs → [`process`] starts and ends programs → [`idle`] weighs idle connections → [`rounds`] load every
//! peer in turn → [`summary`] takes medians and ratios, [`goals`] hold them against what is promised → [`text`], [`markdown`], [`pictures`] and [`record`] tell it, with
//! the [`machine`] that it was measured on.
//!
//! Never: leaves a process or a file outside the report's folder, also after Ctrl-C or a panic.

pub(crate) mod catalog;
pub(crate) mod choose;
mod goals;
pub(crate) mod idle;
pub(crate) mod machine;
pub(crate) mod markdown;
mod options;
pub(crate) mod pair;
mod pictures;
pub(crate) mod process;
mod record;
mod rounds;
pub(crate) mod stage;
pub(crate) mod summary;
pub(crate) mod text;
mod workloads;

pub use options::Options;
pub(crate) use stage::LeftOut;

use std::{fs, net::Ipv4Addr, path::Path};

use anyhow::{Context, Result, bail};
use nix::unistd::Uid;
use serde_json::Value;

use catalog::Backend;
use machine::{Cores, Machine};
use record::{Report, Told};

/// Compares, prints the table, writes the report; `true` when every answer was right.
///
/// # Errors
/// No peer could be started, or the machine does not let us measure.
pub fn run(options: &Options) -> Result<bool> {
    let cores = Cores::choose()?;
    let keeper = process::Keeper::watch()?;
    let works = options.works()?;
    let stage =
        stage::Stage::build(&options.programs, &backends(&works), Ipv4Addr::LOCALHOST, cores, &keeper)?;
    machine::pin(cores.load)?;
    let mut machine = Machine::look(cores);
    let (peers, left_out) = stage.start_all(&options.wanted()?);
    for (name, why) in &left_out {
        eprintln!("peers: {name} is left out: {why}");
    }
    if peers.is_empty() {
        bail!("no peer could be started; see above");
    }
    let idle = idle::weigh_all(options, &peers);
    let runs = rounds::run_all(options.pace(), &works, &stage, &peers);
    let calls = if options.no_calls || options.quick {
        Vec::new()
    } else {
        rounds::count_calls(options, &works, &stage, &peers)
    };
    machine.look_again();
    let plain = peers.iter().filter(|peer| peer.backend == Backend::Nsd);
    let told = plain.map(|peer| Told { entry: peer.entry, version: peer.version.clone() }).collect();
    drop(peers);
    drop(stage);
    let report = Report { machine, pace: options.pace(), peers: told, left_out, idle, runs, calls };
    print!("{}", text::tables(&report));
    if let Some(folder) = &options.report {
        write_report(folder, "peers", &markdown::report(&report), &report.json())?;
        pictures::draw(&report, folder)?;
    }
    Ok(report.is_clean())
}

/// The backends that this work needs; idle connections are weighed before NSD.
fn backends(works: &[&workloads::Work]) -> Vec<Backend> {
    let mut backends = vec![Backend::Nsd];
    backends.extend(works.iter().map(|work| work.backend).find(|backend| *backend != Backend::Nsd));
    backends
}

/// Measures as root, on the cores of this machine. Returns the machine, which was looked at before and after, and what was measured.
///
/// # Errors
/// Not root, no cores, or those of `measure`; `needs` says what of it needs root, for the bench of this name.
pub(crate) fn measure_as_root<T>(
    name: &str,
    needs: &str,
    measure: impl FnOnce(Cores, &process::Keeper) -> Result<T>,
) -> Result<(Machine, T)> {
    if !Uid::effective().is_root() {
        bail!("{needs} need root: sudo cargo xtask bench {name}");
    }
    let cores = Cores::choose()?;
    let keeper = process::Keeper::watch()?;
    let mut machine = Machine::look(cores);
    let measured = measure(cores, &keeper)?;
    machine.look_again();
    Ok((machine, measured))
}

/// Writes a report as NAME.md and NAME.json into a folder, which it makes.
pub(crate) fn write_report(folder: &Path, name: &str, markdown: &str, json: &Value) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    write(&folder.join(format!("{name}.md")), markdown)?;
    write(&folder.join(format!("{name}.json")), &format!("{json:#}\n"))
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    println!("written: {}", path.display());
    Ok(())
}
