//! The counters and states of the running dotd at one moment.
//!
//! Before: `dotd top` needs a sample. After: all answers of one sample, to be compared with those of the previous
//! one.
//! Never: asks for names unless the operator does.

use std::{path::Path, time::Instant};

use crate::{
    cli::{ask, error::CliError},
    control::{Status, Top},
    ledger::Snapshot,
    xdp::BanRow,
};

/// One sample.
pub(super) struct Sample {
    pub(super) at: Instant,
    pub(super) status: Status,
    pub(super) stats: Snapshot,
    pub(super) bans: Vec<BanRow>,
    pub(super) top: Top,
}

impl Sample {
    /// Asks the dotd at `socket`.
    pub(super) fn take(socket: &Path, with_names: bool) -> Result<Self, CliError> {
        let (_, status) = ask::ask(socket, "/status")?;
        let (_, bans) = ask::ask(socket, "/bans")?;
        let (_, top) = ask::ask(socket, if with_names { "/top?names" } else { "/top" })?;
        let (_, stats) = ask::ask(socket, "/stats")?;
        Ok(Self { at: Instant::now(), status, stats, bans, top })
    }
}
