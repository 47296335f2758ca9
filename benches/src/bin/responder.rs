//! `responder`: the backend that answers many queries in one write.
//!
//! Before: an address. After: it serves until it is ended.
//! Never: holds a decision of its own; see `dot_benches::responder`.

use std::process::ExitCode;

use clap::Parser;
use dot_benches::responder::{self, Options};

fn main() -> ExitCode {
    match responder::run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("responder: {error:#}");
            ExitCode::FAILURE
        }
    }
}
