//! `dotd cache flush`.
//!
//! Before: the words of an operator. After: every worker of the running dotd has the command, and one line confirms
//! it.
//! Never: checks a name: the running dotd does.

use std::path::Path;

use hyper::Method;

use super::{arguments::CacheVerb, ask, error::CliError, print, show, socket};
use crate::control::{FlushRequest, Flushed};

const PATH: &str = "/cache";

/// Runs one of the verbs.
pub(super) fn run(verb: CacheVerb, config: Option<&Path>) -> Result<(), CliError> {
    let CacheVerb::Flush { name, suffix, qtype, control } = verb;
    let request = FlushRequest { name, suffix, qtype };
    let (body, done) = ask::tell::<Flushed>(&socket(&control, config), Method::DELETE, PATH, &request)?;
    if control.json {
        return print(&format!("{body}\n"));
    }
    let workers = show::of(done.workers, "worker");
    print(&format!("{workers} removed the answers for {}\n", what(&done.asked)))
}

/// "www.example.net and all below it, type AAAA".
fn what(asked: &FlushRequest) -> String {
    let name = asked.name.as_deref().unwrap_or("every name");
    let below = if asked.suffix { " and all below it" } else { "" };
    let qtype = asked.qtype.as_ref().map(|qtype| format!(", type {qtype}")).unwrap_or_default();
    format!("{name}{below}{qtype}")
}
