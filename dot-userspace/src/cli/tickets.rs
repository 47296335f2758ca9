//! `dotd tickets rotate`.
//!
//! Before: the words of an operator. After: the running dotd seals tickets by a new key, and one line says so.
//! Never: sees a key.

use std::path::Path;

use hyper::Method;

use super::{arguments::TicketsVerb, ask, error::CliError, print, socket};
use crate::control::{RotateRequest, Rotated};

const PATH: &str = "/tickets";

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
