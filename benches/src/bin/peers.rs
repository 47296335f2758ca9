//! `peers`: dotd beside the front ends that people use today, one table.
//!
//! Before: `cargo xtask bench peers` installed and built what it needs. After: a report on stdout and in a folder,
//! and an exit status that says whether every answer was right.
//! Never: holds a decision of its own; see `dot_benches::peers`.

use std::process::ExitCode;

use clap::Parser;
use dot_benches::peers::{self, Options};

fn main() -> ExitCode {
    match peers::run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("peers: {error:#}");
            ExitCode::FAILURE
        }
    }
}
