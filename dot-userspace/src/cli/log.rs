//! `dotd log`: sets which lines the running dotd writes.
//!
//! Before: the words of an operator. After: the running dotd writes such lines until a reload.
//! Never: changes the config: the next reload applies the file again.

use std::path::Path;

use clap::{
    ArgAction, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
};
use hyper::Method;

use super::{
    arguments::ControlArguments,
    ask,
    error::CliError,
    examples::{LOG_CONNECTIONS_EXAMPLES, LOG_LEVEL_EXAMPLES},
    print, socket,
};
use crate::{config::LogLevel, control::LogRequest};

/// The verbs for the log.
#[derive(Debug, Subcommand)]
pub(super) enum LogVerb {
    /// Write lines of this level and above, until the next reload or restart
    ///
    /// Level debug writes a line for each session, and trace more: they are for diagnosis, not for production.
    #[command(after_help = LOG_LEVEL_EXAMPLES)]
    Level {
        /// The least severe level that is written
        #[arg(value_parser = levels())]
        level: LogLevel,
        #[command(flatten)]
        control: ControlArguments,
    },
    /// Write a line for each connection that ends, or none, until the next reload or restart
    ///
    /// The line has the duration of the connection's phases, the number of queries, and how it ended, but no qname.
    /// `log.connections` sets this permanently.
    #[command(after_help = LOG_CONNECTIONS_EXAMPLES)]
    Connections {
        /// Whether lines are written
        #[arg(value_parser = switch(), action = ArgAction::Set)]
        switch: bool,
        #[command(flatten)]
        control: ControlArguments,
    },
}

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

/// The names of levels, for help and completions too.
fn levels() -> impl TypedValueParser<Value = LogLevel> {
    let names = PossibleValuesParser::new(LogLevel::NAMED.map(|(name, _)| name));
    let level = |name: String| LogLevel::NAMED.into_iter().find(|(known, _)| *known == name);
    names.try_map(move |name| level(name).map(|(_, level)| level).ok_or("no such level"))
}

/// "on" or "off".
fn switch() -> impl TypedValueParser<Value = bool> {
    PossibleValuesParser::new(["on", "off"]).map(|word| word == "on")
}
