//! `dotbench`: dotd beside the front ends that people use today, under attack, beside misuse, under changes, over
//! restarts, at every size, with a large policy zone, and as it is installed.
//!
//! Before: `cargo xtask bench …` installed and built what it needs. After: a report on stdout and in a folder,
//! and an exit status that says whether every answer was right.
//! Never: holds a decision of its own; see `dot_benches::peers`, `attack`, `misuse`, `endurance`, `restart`,
//! `scale`, `policy` and `packaged`.

use std::process::ExitCode;

use clap::Parser;
use dot_benches::{attack, endurance, misuse, packaged, peers, policy, restart, scale};

/// The program that `cargo xtask bench` executes.
#[derive(Parser)]
#[command(name = "dotbench", version)]
enum Arguments {
    Peers(peers::Options),
    Attack(attack::Options),
    Misuse(misuse::Options),
    Endurance(endurance::Options),
    Scale(scale::Options),
    Restart(restart::Options),
    Packaged(packaged::Options),
    Policy(policy::Options),
}

fn main() -> ExitCode {
    let done = match &Arguments::parse() {
        Arguments::Peers(options) => peers::run(options),
        Arguments::Attack(options) => attack::run(options),
        Arguments::Misuse(options) => misuse::run(options),
        Arguments::Endurance(options) => endurance::run(options),
        Arguments::Scale(options) => scale::run(options),
        Arguments::Restart(options) => restart::run(options),
        Arguments::Packaged(options) => packaged::run(options),
        Arguments::Policy(options) => policy::run(options),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("dotbench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
