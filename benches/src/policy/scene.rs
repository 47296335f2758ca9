//! One program at a time, with a zone of one rule and with one of all rules: its memory, the time until the zone holds, two loads.
//!
//! Before: the programs. After: a row for each. Holds: the zone, and the names of the loads.
//! Never: counts a program as loaded that does not yet block the last name of its zone.

use std::{
    fmt::Write as _,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::Options;
use crate::{
    load::cpu::Usage,
    peers::{
        LeftOut,
        catalog::{Backend, Entry},
        idle::Memory,
        stage::{Peer, Stage},
    },
    scale::steps::load,
};

/// Names of rules that are asked for: more than a processor's caches have room for.
const ASKED: u32 = 200_000;
/// A program may take so long to load the zone.
const PATIENCE: Duration = Duration::from_secs(300);
const LOOK: Duration = Duration::from_millis(50);
/// Memory that only loading needed has been given back by then, where a program gives it back.
const SETTLE: Duration = Duration::from_secs(2);

/// The figures of a program with one zone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Figures {
    /// Memory of all its processes (PSS).
    pub(super) kib: u64,
    /// CPU time from its start until the zone held.
    pub(super) cpu: Duration,
    /// Time until the zone held.
    pub(super) wall: Duration,
    /// CPU time of a query that a rule answers.
    pub(super) hit_us: f64,
    /// CPU time of a query without a rule, answered from a cache or a zone.
    pub(super) miss_us: f64,
    /// Queries that were not answered as they should be.
    pub(super) faults: u64,
}

/// One program.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) version: String,
    /// With a zone of one rule.
    pub(super) one: Figures,
    /// With all rules.
    pub(super) all: Figures,
}

/// Measures one program after the other; those that fail are left out, with the reason.
///
/// # Errors
/// A file cannot be written, or dotd itself failed.
pub(super) fn measure_all(
    options: &Options,
    cases: &'static [Entry],
    stage: &mut Stage,
) -> Result<(Vec<Row>, LeftOut)> {
    stage.wait_up_to(PATIENCE);
    let field = Field::write(stage.folder(), options.rules)?;
    let is_wanted =
        |entry: &&Entry| options.only.is_empty() || options.only.iter().any(|name| name == entry.name);
    let (mut rows, mut left_out) = (Vec::new(), LeftOut::new());
    for entry in cases.iter().filter(is_wanted) {
        match measure(options, entry, stage, &field) {
            Ok(row) => {
                super::report::tell(&row);
                rows.push(row);
            }
            Err(why) if entry.name == "dotd" => return Err(why.context("dotd")),
            Err(why) => left_out.push((entry.name, format!("{why:#}"))),
        }
    }
    if rows.is_empty() {
        bail!("nothing could be measured: {left_out:?}");
    }
    Ok((rows, left_out))
}

/// Files that all programs share.
struct Field {
    one: PathBuf,
    all: PathBuf,
    /// Names of rules, in an order without a pattern; the one rule of the small zone is the first of them.
    blocked: PathBuf,
    first: PathBuf,
    last: PathBuf,
}

impl Field {
    fn write(folder: &Path, rules: u32) -> Result<Self> {
        let path = |name: &str| folder.join(name);
        let field = Self {
            one: path("one-rule"),
            all: path("all-rules"),
            blocked: path("blocked"),
            first: path("first"),
            last: path("last"),
        };
        write_zone(&field.one, 1)?;
        write_zone(&field.all, rules)?;
        let mut names = String::new();
        for place in 0..ASKED.min(rules) {
            // 7919 is a prime: no number comes twice before all came.
            let number = u64::from(place) * 7919 % u64::from(rules);
            // Writing to a string cannot fail.
            let _ = writeln!(names, "{} A", name(u32::try_from(number)?));
        }
        fs::write(&field.blocked, names)?;
        fs::write(&field.first, format!("{} A\n", name(0)))?;
        fs::write(&field.last, format!("{} A\n", name(rules - 1)))?;
        Ok(field)
    }
}

/// The name of a rule. An odd multiplier makes each number another one, in an order without a pattern.
fn name(number: u32) -> String {
    format!("host-{:08x}.test", number.wrapping_mul(0x9e37_79b1))
}

fn write_zone(path: &Path, rules: u32) -> Result<()> {
    let mut file = std::io::BufWriter::new(fs::File::create(path)?);
    writeln!(file, "$TTL 300\n@ SOA localhost. root.localhost. 1 3600 600 86400 300\n@ NS localhost.")?;
    for number in 0..rules {
        writeln!(file, "{} CNAME .", name(number))?;
    }
    file.flush().with_context(|| format!("cannot write {}", path.display()))
}

fn measure(options: &Options, entry: &'static Entry, stage: &Stage, field: &Field) -> Result<Row> {
    let (peer, one) = started(options, entry, stage, (&field.one, &field.first, &field.first))?;
    let version = peer.version.clone();
    drop(peer);
    let (_peer, all) = started(options, entry, stage, (&field.all, &field.last, &field.blocked))?;
    Ok(Row { name: entry.name, version, one, all })
}

/// Starts the program with a zone, waits until the zone holds, weighs the program, and loads it.
fn started(
    options: &Options,
    entry: &'static Entry,
    stage: &Stage,
    (zone, sign, blocked): (&Path, &Path, &Path),
) -> Result<(Peer, Figures)> {
    let began = Instant::now();
    let more = [("RULES", zone.display().to_string())];
    let peer = stage.start(entry, Backend::Nsd, &[stage.cores().front], &more)?;
    while load(&peer, sign, "NXDOMAIN", &["--connections=1", "--queries=1"])?.tally.answered == 0 {
        if began.elapsed() > PATIENCE {
            bail!("the last name of the zone is not blocked after {PATIENCE:?}");
        }
        thread::sleep(LOOK);
    }
    let (wall, cpu) = (began.elapsed(), Usage::of(peer.process.pid())?.total());
    thread::sleep(SETTLE);
    let kib = Memory::of(peer.process.pid()).pss;
    let (hit_us, of_hits) = cost(options, &peer, blocked, "NXDOMAIN")?;
    let (miss_us, of_misses) = cost(options, &peer, &stage.names(), "NOERROR")?;
    Ok((peer, Figures { kib, cpu, wall, hit_us, miss_us, faults: of_hits + of_misses }))
}

/// CPU µs a query, and the queries that got another answer, or none.
fn cost(options: &Options, peer: &Peer, names: &Path, expected: &str) -> Result<(f64, u64)> {
    // A cache is full before the measurement.
    load(peer, names, expected, &["--connections=10", "--depth=100", "--queries=20000"])?;
    let seconds = format!("--seconds={}", options.seconds);
    let outcome = load(peer, names, expected, &["--connections=10", "--depth=100", &seconds])?;
    let (Some(server), answered) = (&outcome.server, outcome.tally.answered) else {
        bail!("its CPU cannot be read");
    };
    if answered == 0 {
        bail!("no query was answered: {:?}", outcome.tally.errors);
    }
    Ok((server.total().as_secs_f64() * 1e6 / answered as f64, outcome.tally.sent - answered))
}
