//! `floor`: a TLS echo and a TLS-to-UDP relay, the least that a front end can cost.
//!
//! Before: `cargo xtask bench peers` names a certificate. After: it serves until it is ended.
//! Never: holds a decision of its own; see `dot_benches::floor`.

use std::process::ExitCode;

use clap::Parser;
use dot_benches::floor::{self, Options};

fn main() -> ExitCode {
    match floor::run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("floor: {error:#}");
            ExitCode::FAILURE
        }
    }
}
