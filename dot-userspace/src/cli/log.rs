//! `dotd log`: sets which lines the running dotd writes.
//!
//! Before: the words of an operator. After: the running dotd writes such lines, until a reload.
//! Never: changes the config: the next reload says what its file says.

use std::path::Path;

use hyper::Method;

use super::{arguments::LogVerb, ask, error::CliError, print, socket};
use crate::control::LogRequest;

/// Runs the verb.
pub(super) fn run(verb: LogVerb, config: Option<&Path>) -> Result<(), CliError> {
    let (request, control) = match verb {
        LogVerb::Level { level, control } => (LogRequest { level: Some(level), connections: None }, control),
        LogVerb::Connections { switch, control } => {
            (LogRequest { level: None, connections: Some(switch) }, control)
        }
    };
    let (body, done) = ask::tell::<LogRequest>(&socket(&control, config), Method::POST, "/log", &request)?;
    if control.json {
        return print(&format!("{body}\n"));
    }
    let said = match (request.connections, done.level) {
        (Some(is_on), _) => format!("log.connections is {is_on}"),
        (None, level) => format!("log.level is {}", level.map_or("unknown", |level| level.name())),
    };
    print(&format!("{said} until the next reload\n"))
}
