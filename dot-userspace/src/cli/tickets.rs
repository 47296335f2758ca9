//! `dotd tickets rotate`.
//!
//! Before: the words of an operator. After: the running dotd seals tickets with a new key, and one line confirms it.
//! Never: sees a key.

use std::path::Path;

use clap::Subcommand;
use hyper::Method;

use super::{
    arguments::ControlArguments, ask, error::CliError, examples::TICKETS_ROTATE_EXAMPLES, print, socket,
};
use crate::control::{RotateRequest, Rotated};

const PATH: &str = "/tickets";

/// The verbs for session tickets.
#[derive(Debug, Subcommand)]
pub(super) enum TicketsVerb {
    /// Start the next rotation of ticket keys now
    ///
    /// From now on a new key seals tickets, on every worker; tickets of the last key can be resumed until this
    /// rotation ends.
    /// Every node shares the keys from `tls.ticket_secret`: change that file instead.
    #[command(after_help = TICKETS_ROTATE_EXAMPLES)]
    Rotate {
        /// Reject older tickets and sessions from now on: use it after a key leaked, or a certificate was replaced
        #[arg(long)]
        end_old: bool,
        #[command(flatten)]
        control: ControlArguments,
    },
}

/// Runs one of the verbs.
pub(super) fn run(verb: TicketsVerb, config: Option<&Path>) -> Result<(), CliError> {
    let TicketsVerb::Rotate { end_old, control } = verb;
    let request = RotateRequest { end_old };
    let (body, done) = ask::tell::<Rotated>(&socket(&control, config), Method::POST, PATH, &request)?;
    if control.json {
        return print(&format!("{body}\n"));
    }
    let old = if done.end_old {
        "older tickets are rejected"
    } else {
        "older tickets are valid until this rotation ends"
    };
    print(&format!("session tickets have a new key; {old}\n"))
}
