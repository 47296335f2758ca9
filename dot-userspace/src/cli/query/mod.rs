//! `dotd query`: a client for diagnosis, over TLS, TCP and UDP.
//!
//! Before: the shell. After: answers on standard output, and an exit status that classifies them.
//! The path: `words` and `arguments` → `plan` → `wire` opens and `exchange` (or `datagrams`) sends the messages of
//! `compose` → `text` or `json` prints with `zone_form` and `options`; `outcome` has the exit status,
//! `traced` what dotd saw of it.
//! Never: serves a client, keeps state, or asks a server without proof of its identity under the strict profile.

mod arguments;
mod compose;
mod datagrams;
mod exchange;
mod failure;
mod fast_open;
mod json;
mod matching;
mod options;
mod outcome;
mod plan;
mod text;
mod traced;
mod used;
mod wire;
mod words;
mod zone_form;

use std::{
    io::{self, Write as _},
    path::Path,
};

pub(super) use arguments::QueryArguments;
pub(super) use json::ascii;
pub(super) use words::as_options;

use super::{arguments::ControlArguments, error::CliError, print, socket};
use outcome::Round;
use plan::Plan;
use traced::Watch;

/// Asks and prints; the exit status by outcome.
pub(super) fn run(arguments: QueryArguments, config: Option<&Path>) -> Result<u8, CliError> {
    let (is_short, is_json) = (arguments.short, arguments.json);
    let control = ControlArguments { socket: arguments.socket.clone(), json: is_json };
    let trace = arguments.trace_on.then(|| socket(&control, config));
    let plan = plan::plan(arguments, config)?;
    let watch = trace.map(|socket| Watch::begin(&plan, socket)).transpose()?;
    let rounds = ask(&plan).map_err(CliError::Query)?;
    let traced = watch.map(|watch| watch.collect(&plan.used.borrow()));
    let status = rounds.iter().map(Round::status).max().unwrap_or_default();
    if is_json {
        print(&json::full(&plan, &rounds, traced.as_ref(), status))?;
    } else if is_short {
        print(&text::short(&rounds))?;
        // If standard error is closed, there is no place for the message.
        let _ = io::stderr().write_all(text::complaints(&plan, &rounds).as_bytes());
    } else {
        print(&text::full(&plan, &rounds, traced.as_ref()))?;
    }
    Ok(status)
}

/// Asks each round over a connection of its own, or all over one.
fn ask(plan: &Plan) -> Result<Vec<Round>, String> {
    match plan.resumes {
        true => (0..plan.rounds).map(|_| exchange::round(plan)).collect(),
        false => exchange::rounds_of_one(plan),
    }
}
