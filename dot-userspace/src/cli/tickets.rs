//! `dotd tickets rotate`.
//!
//! Before: the words of an operator. After: the running dotd seals tickets by a new key, and one line says so.
//! Never: sees a key.

use std::path::Path;

use clap::Subcommand;
use hyper::Method;

use super::{
    arguments::ControlArguments, ask, error::CliError, examples::TICKETS_ROTATE_EXAMPLES, print, socket,
};
use crate::control::{RotateRequest, Rotated};

const PATH: &str = "/tickets";

/// What to do with session tickets.
#[derive(Debug, Subcommand)]
pub(super) enum TicketsVerb {
    /// Begin the next rotation of ticket keys now
    ///
    /// A new key seals tickets from now on, on every worker; tickets of the last key resume until this rotation ends.
    /// Keys from `tls.ticket_secret` are shared by every node: change that file instead.
    #[command(after_help = TICKETS_ROTATE_EXAMPLES)]
    Rotate {
        /// Older tickets and sessions do not resume any more: use it after a key leaked, or a certificate was replaced
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
    let old = if done.end_old { "no older ticket resumes" } else { "older tickets end with this rotation" };
    print(&format!("session tickets have a new key; {old}\n"))
}
