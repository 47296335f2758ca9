//! `dotd log level`.
//!
//! Before: the words of an operator. After: the running dotd writes lines of that level and above.
//! Never: changes the config: the next reload says what its file says.

use std::path::Path;

use hyper::Method;

use super::{arguments::LogVerb, ask, error::CliError, print, socket};
use crate::control::LogRequest;

/// Runs the verb.
pub(super) fn run(verb: LogVerb, config: Option<&Path>) -> Result<(), CliError> {
    let LogVerb::Level { level, control } = verb;
    let request = LogRequest { level };
    let (body, done) = ask::tell::<LogRequest>(&socket(&control, config), Method::POST, "/log", &request)?;
    if control.json {
        return print(&format!("{body}\n"));
    }
    print(&format!("log.level is {} until the next reload\n", done.level.name()))
}
