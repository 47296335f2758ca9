//! The measurements: for each count a fresh front end, filled where it has a cache, then loaded.
//!
//! Before: the quantity that grows, and its maximum. After: a point for each count and front end.
//! Never: counts the cost of filling; goes on after a front end failed at a count.

use std::{fmt::Write, fs};

use anyhow::{Context, Result, bail};
use clap::Parser;

use super::{Options, Over};
use crate::{
    load::{client::Clients, options::Options as LoadOptions, queries, threads},
    peers::{
        catalog::{Backend, CATALOG, DOTD, Entry},
        stage::{Peer, Stage},
    },
};

/// One figure.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// The quantity.
    pub over: Over,
    /// The count.
    pub count: u32,
    /// The front end.
    pub front: &'static str,
    /// Its CPU for each answered query.
    pub cpu_us: f64,
    /// Answered.
    pub queries_per_second: f64,
    /// Not answered as expected.
    pub faults: u64,
}

/// dotd with all quantities.
static DOTD_AT_SCALE: Entry =
    Entry { name: "dotd", transport: "udp", config: include_str!("../../scale/dotd.toml"), ..DOTD };

/// Clients' addresses: more ports than one address has, and fewer connections than a prefix may have.
const SOURCES: u32 = 128;

/// Measures over one kind of count: 10, 100, … or 1, 2, … workers.
pub(super) fn measure(
    options: &Options,
    stage: &Stage,
    over: Over,
    most: u32,
    own: &[usize],
    points: &mut Vec<Point>,
    left_out: &mut Vec<String>,
) {
    let floor = CATALOG.iter().find(|entry| entry.name == "floor-relay");
    let fronts = [Some(&DOTD_AT_SCALE), floor.filter(|_| over == Over::Connections)];
    for entry in fronts.into_iter().flatten() {
        for count in counts(over, most) {
            match point(options, stage, over, count, own, entry) {
                Ok(point) => {
                    eprintln!("scale   {over:?} {count:>9}  {:<12}{:8.2} µs CPU", point.front, point.cpu_us);
                    points.push(point);
                }
                Err(why) => {
                    let why = format!("{} with {count} ({over:?}): {why:#}", entry.name);
                    eprintln!("scale: left out: {why}");
                    left_out.push(why);
                    break;
                }
            }
        }
    }
}

fn counts(over: Over, most: u32) -> Vec<u32> {
    let first: u32 = match over {
        Over::Connections => 10,
        Over::Cache => 1000,
        Over::Workers => return (0..=5).map(|power| 1 << power).filter(|count| *count <= most).collect(),
    };
    let mut counts: Vec<u32> = (0..=5).map(|power| first.saturating_mul(10_u32.pow(power))).collect();
    counts.retain(|count| *count < most);
    counts.push(most);
    counts
}

fn point(
    options: &Options,
    stage: &Stage,
    over: Over,
    count: u32,
    own: &[usize],
    entry: &'static Entry,
) -> Result<Point> {
    let is_over = |this: Over| if this == over { count } else { 0 };
    let more =
        [("CACHE", is_over(Over::Cache).to_string()), ("WORKERS", is_over(Over::Workers).max(1).to_string())];
    let (backend, cores) = match over {
        // The zone has a thousand names; the responder has all.
        Over::Cache => (Backend::Coalescing, &own[..1]),
        Over::Connections => (Backend::Nsd, &own[..1]),
        Over::Workers => (Backend::Nsd, own),
    };
    let peer = stage.start(entry, backend, cores, &more)?;
    let names = stage.folder().join("many-names");
    let file = if over == Over::Cache {
        fs::write(&names, many_names(count)).context("cannot write the names")?;
        // Twice: queries that timed out the first time are in the cache after the second.
        for _ in 0..2 {
            load(
                &peer,
                &names,
                "NOERROR",
                &["--connections=10", "--depth=100", &format!("--queries={count}")],
            )?;
        }
        &names
    } else {
        &stage.names()
    };
    let (connections, depth) = match over {
        Over::Connections => (count, 1),
        Over::Cache => (10, 100),
        Over::Workers => (100, 10),
    };
    let words = [
        format!("--connections={connections}"),
        format!("--depth={depth}"),
        format!("--sources={SOURCES}"),
        format!("--seconds={}", options.seconds),
        "--timeout=30".to_owned(),
    ];
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let outcome = load(&peer, file, "NOERROR", &words)?;
    let (Some(server), answered) = (&outcome.server, outcome.tally.answered) else {
        bail!("its CPU cannot be read");
    };
    if answered == 0 {
        bail!("no query was answered: {:?}", outcome.tally.errors);
    }
    Ok(Point {
        over,
        count,
        front: entry.name,
        cpu_us: server.total().as_secs_f64() * 1e6 / answered as f64,
        queries_per_second: answered as f64 / outcome.elapsed.as_secs_f64().max(f64::MIN_POSITIVE),
        faults: outcome.tally.sent - answered,
    })
}

/// Loads a peer with queries for the names of a file, whose response code must be the expected one.
///
/// # Errors
/// A mistake in `more`, or no thread.
pub(crate) fn load(
    peer: &Peer,
    names: &std::path::Path,
    expected: &str,
    more: &[&str],
) -> Result<threads::Outcome> {
    let words = [
        "dotload".to_owned(),
        peer.address.to_string(),
        "--quiet".to_owned(),
        format!("--expect={expected}"),
        format!("--file={}", names.display()),
        format!("--server-pid={}", peer.process.pid()),
    ];
    let words = words.into_iter().chain(more.iter().map(|word| (*word).to_owned()));
    let options = LoadOptions::try_parse_from(words)?;
    let clients = Clients::new(&options)?;
    threads::run(&options, queries::load(&options)?, &clients)
}

fn many_names(count: u32) -> String {
    let mut names = String::new();
    for host in 0..count {
        // Writing to a string cannot fail.
        let _ = writeln!(names, "host-{host}.dotd.test A");
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: counts are powers up to what is asked for, and that itself. Method: a limit on and off a power.
    #[test]
    fn counts_by_powers() {
        assert_eq!(counts(Over::Connections, 10), [10]);
        assert_eq!(counts(Over::Connections, 2500), [10, 100, 1000, 2500]);
        assert_eq!(counts(Over::Cache, 100_000), [1000, 10_000, 100_000]);
        assert_eq!(counts(Over::Cache, 10_000_000), [1000, 10_000, 100_000, 1_000_000, 10_000_000]);
        assert_eq!(counts(Over::Workers, 3), [1, 2]);
    }
}
