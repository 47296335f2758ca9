//! `dotload`: loads a DNS-over-TLS server, and reports latencies and costs.
//!
//! Before: a server's address. After: a report on stdout, and an exit status that says whether every query
//! was answered. Never: holds a decision of its own; see `dot_benches::load`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use dot_benches::load::{client::Clients, options::Options, queries, report, threads};

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("dotload: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<bool> {
    let clients = Clients::new(options)?;
    let outcome = threads::run(options, queries::load(options)?, &clients)?;
    if options.json {
        println!("{:#}", report::json(options, &outcome));
    } else {
        println!("{}", report::text(options, &outcome));
    }
    Ok(outcome.tally.is_clean())
}
