//! The command line of `peers`, checked.
//!
//! Before: words. After: which peers, how long, where to. Never: opens anything.

use std::{path::PathBuf, time::Duration};

use anyhow::{Result, bail};
use clap::Parser;

use super::{
    catalog::{CATALOG, Entry},
    choose::choose,
    stage::Programs,
    workloads::{WORK, Work},
};
use crate::load::options::seconds;

/// Compares dotd with stunnel, HAProxy, nginx, dnsdist, Unbound, BIND and Knot Resolver: the same queries over
/// DNS over TLS, the same backend, one worker pinned to one core, load and backend on another.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "peers",
    version,
    after_help = "\
EXAMPLES:
    cargo xtask bench peers             install, build, compare: about 15 minutes
    cargo xtask bench peers --quick     one short round: about 2 minutes
    cargo xtask bench peers --only dotd,floor,nginx

    Figures are ratios within one run: on a machine that does other work they are not worth more.

EXIT STATUS:
    0 when every query was answered as expected, 1 when not or when nothing could be measured,
    2 for a mistake in the command line."
)]
pub struct Options {
    /// One short round, without counting system calls
    #[arg(long)]
    pub quick: bool,
    /// Only these: a name, or the first part of names (`dnsdist` is `dnsdist` and `dnsdist-cache`)
    #[arg(long, value_delimiter = ',', value_name = "NAME,…")]
    pub only: Vec<String>,
    /// Rounds over all work and all peers [default: 3, quick: 1]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: Option<u32>,
    /// Seconds of each load [default: 2, quick: 0.4]
    #[arg(long, value_parser = seconds)]
    pub seconds: Option<Duration>,
    /// Only this work (w100x1, w1000x1, w100x10, w10x100, c10x100, hsfull, hsres, open5k, open)
    #[arg(long, value_delimiter = ',', value_name = "WORK,…")]
    pub work: Vec<String>,
    /// Queries a second of the work `open`; the report says where they could not be offered or answered
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub rate: u32,
    /// Do not count system calls
    #[arg(long)]
    pub no_calls: bool,
    /// Idle connections to weigh; 0: do not
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub idle: u32,
    /// Our own programs
    #[command(flatten)]
    pub programs: Programs,
    /// Folder for peers.md, peers.json and plots; without it nothing is written
    #[arg(long)]
    pub report: Option<PathBuf>,
}

/// How often and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pace {
    pub(crate) rounds: u32,
    pub(crate) duration: Duration,
    pub(crate) idle: u32,
    /// Queries a second of the work `open`.
    pub(crate) rate: u32,
}

impl Options {
    pub(crate) fn pace(&self) -> Pace {
        let (rounds, milliseconds) = if self.quick { (1, 400) } else { (3, 2000) };
        Pace {
            rounds: self.rounds.unwrap_or(rounds),
            duration: self.seconds.unwrap_or(Duration::from_millis(milliseconds)),
            idle: self.idle,
            rate: self.rate,
        }
    }

    /// The work that was asked for, in the table's order.
    ///
    /// # Errors
    /// A name that no work has.
    pub(crate) fn works(&self) -> Result<Vec<&'static Work>> {
        if let Some(unknown) = self.work.iter().find(|name| !WORK.iter().any(|work| work.name == **name)) {
            let known: Vec<&str> = WORK.iter().map(|work| work.name).collect();
            bail!("--work {unknown}: there is {}", known.join(", "));
        }
        let is_wanted = |work: &&Work| self.work.is_empty() || self.work.iter().any(|name| name == work.name);
        Ok(WORK.iter().filter(is_wanted).collect())
    }

    /// The peers that were asked for, in the catalogue's order.
    ///
    /// # Errors
    /// A name that no peer has.
    pub(crate) fn wanted(&self) -> Result<Vec<&'static Entry>> {
        choose(&self.only, CATALOG, |entry| entry.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(line: &[&str]) -> Result<Vec<&'static str>> {
        let options = Options::try_parse_from(line.iter().copied())?;
        Ok(options.wanted()?.iter().map(|entry| entry.name).collect())
    }

    /// Goal: a family or a single peer can be chosen, and a slip is told. Method: each kind of name.
    #[test]
    fn chooses_peers() {
        assert_eq!(names(&["peers"]).expect("all").len(), CATALOG.len());
        let few = names(&["peers", "--only", "floor,dnsdist-cache"]).expect("three");
        assert_eq!(few, ["dnsdist-cache", "floor-echo", "floor-relay", "floor-relay-tcp"]);
        let error = names(&["peers", "--only", "dnsd"]).expect_err("a part of a word is no name");
        assert!(error.to_string().contains("dnsdist, "), "{error}");
    }
}
