//! `dotd cache flush`.
//!
//! Before: the words of an operator. After: every worker of the running dotd was told, and one line says so.
//! Never: judges a name: the running dotd does.

use std::path::Path;

use hyper::Method;

use super::{arguments::CacheVerb, ask, error::CliError, print, show, socket};
use crate::control::{FlushRequest, Flushed};

const PATH: &str = "/cache";

/// Runs one of the verbs.
pub(super) fn run(verb: CacheVerb, config: Option<&Path>) -> Result<(), CliError> {
    let CacheVerb::Flush { name, control } = verb;
    let request = FlushRequest { name };
    let (body, done) = ask::tell::<Flushed>(&socket(&control, config)?, Method::DELETE, PATH, &request)?;
    if control.json {
        return print(&format!("{body}\n"));
    }
    let what = done.name.as_deref().unwrap_or("every name");
    print(&format!("the answers for {what} are forgotten by {}\n", show::of(done.workers, "worker")))
}
