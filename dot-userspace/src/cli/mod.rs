//! Module `cli`: the command line of `dotd`. Exit status 0 success, 1 failure, 2 wrong usage; `query` has more.
//!
//! Before: the shell. After: `start::run` serves; every other verb prints and ends.
//! Never: keeps state, or prints more than one line for one reason.

mod acme;
mod arguments;
mod ask;
mod backend;
mod ban;
mod cache;
mod check;
mod config_verbs;
mod connect;
mod detach;
mod discovery;
mod error;
mod examples;
mod explain;
mod import;
mod log;
mod man;
mod misuse;
mod page;
mod pin;
mod policy;
mod query;
mod reload;
mod rights;
mod run;
mod show;
mod switches;
mod tickets;
mod top;
mod trace;
mod upgrade;
mod upstream;
mod verify;
mod watch_arguments;

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{CommandFactory as _, Parser as _};
use serde::{Serialize, de::DeserializeOwned};
use tracing::Level;

use crate::{
    config::{self, CONTROL_SOCKET},
    control::Status,
    keeper,
    ledger::Snapshot,
    start::{self, journal, logging},
    xdp,
};
use arguments::{Arguments, ControlArguments, Verb, XdpVerb};
use error::CliError;

/// Runs the verb of the command line; ends the process itself after wrong usage and `--help`.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse_from(query::as_options(std::env::args_os()));
    let outcome = run_verb(arguments);
    logging::flush();
    match outcome {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            let lines = error.to_string();
            complain(Level::ERROR, &lines);
            ExitCode::from(error.status())
        }
    }
}

/// Writes each line to standard error; in the journal, where the verbs of a unit write, with its priority.
fn complain(level: Level, lines: &str) {
    let prefix = if journal::is_journal(io::stderr()) { journal::prefix(level) } else { "" };
    let text: String = lines.lines().map(|line| format!("{prefix}dotd: {line}\n")).collect();
    // If standard error is closed, there is no place for the message.
    let _ = io::stderr().write_all(text.as_bytes());
}

/// The exit status, unless this process failed.
fn run_verb(arguments: Arguments) -> Result<u8, CliError> {
    let path = arguments.config;
    match arguments.verb {
        Verb::Run { acme: true, .. } => return start::serve_acme().map_err(CliError::Start),
        Verb::Run { inherit, trial, restart_dir, keeper_dir, .. } => {
            if let Some(folder) = keeper_dir {
                keeper::keep_accounts_in(folder);
            }
            return run::run((inherit, trial), path, restart_dir);
        }
        Verb::Query(arguments) => return query::run(*arguments, path.as_deref()),
        Verb::Verify(arguments) => return verify::run(arguments, path.as_deref()),
        _ => {}
    }
    run_short(arguments.verb, path).map(|()| 0)
}

/// Every verb whose exit status says only whether it failed.
fn run_short(verb: Verb, path: Option<PathBuf>) -> Result<(), CliError> {
    match verb {
        Verb::Run { .. } | Verb::Query(_) | Verb::Verify(_) => Ok(()),
        Verb::Acme { verb } => acme::run(verb, path.as_deref()),
        Verb::Check { connect, json } => check::run(path.as_deref(), connect, json),
        Verb::Discovery { addresses } => print(&discovery::discovery(&addresses, path.as_deref())?),
        Verb::Pin { files } => print(&pin::pins(&files, path.as_deref())?),
        Verb::Status { control } => show_answer::<Status>(&control, path.as_deref(), "/status", show::status),
        Verb::Stats { control } => {
            show_answer::<Snapshot>(&control, path.as_deref(), "/stats", Snapshot::to_string)
        }
        Verb::Page { control } => page::run(&control, path.as_deref()),
        Verb::Reload { control } => reload::run(&control, path.as_deref()),
        Verb::Explain { client, control } => explain::run(client, &control, path.as_deref()),
        Verb::Upgrade(arguments) => upgrade::run(&arguments, path.as_deref()),
        Verb::Trace(arguments) => {
            let (wish, control) = arguments.wish();
            trace::run(wish, &control, path.as_deref())
        }
        Verb::Top(arguments) => top::run(&arguments.wish(), &arguments.control, path.as_deref()),
        Verb::Upstream { verb } => upstream::run(verb, path.as_deref()),
        Verb::Backend { verb } => backend::run(verb, path.as_deref()),
        Verb::Ban { verb } => ban::run(verb, path.as_deref()),
        Verb::Cache { verb } => cache::run(verb, path.as_deref()),
        Verb::Policy { verb, control } => policy::run(verb, &control, path.as_deref()),
        Verb::Config { verb } => config_verbs::run(verb, path.as_deref()),
        Verb::Misuse { control } => misuse::run(&control, path.as_deref()),
        Verb::Log { verb } => log::run(verb, path.as_deref()),
        Verb::Tickets { verb } => tickets::run(verb, path.as_deref()),
        Verb::Xdp { verb: XdpVerb::Show { control } } => {
            show_answer::<xdp::Report>(&control, path.as_deref(), "/xdp", show::xdp)
        }
        Verb::Xdp { verb: XdpVerb::Detach { force, unless_restarts, control } } => {
            match unless_restarts.as_deref().and_then(detach::reason_to_stay) {
                Some(reason) => print(&reason),
                None => detach::run(force, &control, path.as_deref()),
            }
        }
        Verb::Import { program, files } => print(&import::import(program, &files)?),
        Verb::Switch(verb) => switches::run(verb, path.as_deref()),
        Verb::Man { verbs, to } => man::run(&verbs, to.as_deref()),
        Verb::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "dotd", &mut script);
            print(&String::from_utf8_lossy(&script))
        }
    }
}

/// Asks the running dotd and prints the answer for people or for programs.
fn show_answer<T: DeserializeOwned + Serialize>(
    control: &ControlArguments,
    config: Option<&Path>,
    path: &str,
    text: fn(&T) -> String,
) -> Result<(), CliError> {
    let socket = socket(control, config);
    let (body, meaning) = ask::ask::<T>(&socket, path)?;
    if control.json { print(&format!("{body}\n")) } else { print(&text(&meaning)) }
}

/// `--socket`, or the one in the config's run_dir. Mistakes in the config do not stop a verb that asks a running
/// dotd: the valid parts are used, otherwise the default, and a line says so.
fn socket(control: &ControlArguments, config: Option<&Path>) -> PathBuf {
    if let Some(socket) = &control.socket {
        return socket.clone();
    }
    let (config, mistakes) = match config::load_what_is_sound(config) {
        Ok((placed, mistakes)) => (placed.config, mistakes),
        Err(errors) => (config::Config::default(), errors.mistakes),
    };
    let socket = config.server.run_dir.join(CONTROL_SOCKET);
    if let Some(first) = mistakes.first() {
        let more = mistakes.len() - 1;
        let more = if more == 0 { String::new() } else { format!(" (and {more} more; see `dotd check`)") };
        complain(Level::WARN, &format!("warning: {first}{more}; asking {}", socket.display()));
    }
    socket
}

/// Writes to standard output; a reader that has closed it, as `head` does, is no failure.
fn print(text: &str) -> Result<(), CliError> {
    let mut output = io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(CliError::Output(error)),
        _ => Ok(()),
    }
}

/// The client of the control socket, for the tests of its server.
#[cfg(test)]
pub(crate) fn ask_for_tests<T: DeserializeOwned>(socket: &Path, path: &str) -> Result<T, String> {
    ask::ask(socket, path).map(|(_, meaning)| meaning).map_err(|error| error.to_string())
}
