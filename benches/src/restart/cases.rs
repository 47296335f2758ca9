//! The changes, and the front ends that know them.
//!
//! Before: names from the command line. After: each case with the way in which it is made.
//! Holds: what each front end's manual says: stunnel reads its config again at HUP; HAProxy's master starts another worker at
//! USR2, and becomes the installed program on the way; dnsdist has neither. Never: starts anything.

use anyhow::Result;
use nix::sys::signal::Signal;

use crate::peers::{
    catalog::{DNSDIST, DOTD, Entry, Program, STREAMS},
    choose::choose,
};

/// A change that an operator makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It ends at TERM, and is started again.
    Restart,
    /// It reads its config again.
    Reload(Way),
    /// Another program takes its place.
    Upgrade(Way),
}

/// How a running front end is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Signal(Signal),
    /// A verb of its own, before `-c CONFIG`.
    Verb(&'static str),
}

impl Change {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Restart => "restart",
            Self::Reload(_) => "reload",
            Self::Upgrade(_) => "upgrade",
        }
    }
}

/// A front end and a change.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Case {
    pub(super) entry: &'static Entry,
    pub(super) change: Change,
}

const STUNNEL: Entry = Entry {
    name: "stunnel",
    program: Program::Installed("stunnel4"),
    arguments: &["@CONFIG@"],
    version: &["-version"],
    config: include_str!("../../peers/stunnel.conf"),
    ..STREAMS
};

/// With a master, as its unit has it.
const HAPROXY: Entry = Entry {
    name: "haproxy",
    program: Program::Installed("haproxy"),
    arguments: &["-W", "-f", "@CONFIG@"],
    version: &["-v"],
    config: include_str!("../../peers/haproxy.conf"),
    ..STREAMS
};

const OF_DNSDIST: Entry =
    Entry { name: "dnsdist", config: include_str!("../../peers/dnsdist.conf"), ..DNSDIST };

const OF_DOTD: Entry = Entry { name: "dotd", transport: "udp", ..DOTD };

const CASES: &[Case] = &[
    Case { entry: &STUNNEL, change: Change::Restart },
    Case { entry: &STUNNEL, change: Change::Reload(Way::Signal(Signal::SIGHUP)) },
    Case { entry: &HAPROXY, change: Change::Restart },
    Case { entry: &HAPROXY, change: Change::Upgrade(Way::Signal(Signal::SIGUSR2)) },
    Case { entry: &OF_DNSDIST, change: Change::Restart },
    Case { entry: &OF_DOTD, change: Change::Restart },
    Case { entry: &OF_DOTD, change: Change::Reload(Way::Verb("reload")) },
    Case { entry: &OF_DOTD, change: Change::Upgrade(Way::Verb("upgrade")) },
];

/// The cases of these front ends, or all.
///
/// # Errors
/// A name that no front end has.
pub(super) fn wanted(only: &[String]) -> Result<Vec<&'static Case>> {
    choose(only, CASES, |case| case.entry.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: front ends can be chosen, and a slip is told. Method: one, all, and a part of a name.
    #[test]
    fn chooses_front_ends() {
        assert_eq!(wanted(&[]).expect("all").len(), CASES.len());
        let changes: Vec<&str> =
            wanted(&["dotd".to_owned()]).expect("dotd").iter().map(|case| case.change.name()).collect();
        assert_eq!(changes, ["restart", "reload", "upgrade"]);
        assert!(wanted(&["dot".to_owned()]).is_err());
    }
}
