//! Switches of the running dotd: `dotd disable`, `enable`, `drain`, `undrain`.
//!
//! Before: the words of an operator. After: the running dotd has switched, until the next command or a restart.
//! Never: changes the config.

use std::{path::Path, time::Duration};

use clap::Subcommand;
use hyper::Method;

use super::{
    arguments::ControlArguments,
    ask,
    error::CliError,
    examples::{DISABLE_EXAMPLES, DRAIN_EXAMPLES, ENABLE_EXAMPLES, UNDRAIN_EXAMPLES},
    print, socket,
};
use crate::{
    config::parse_duration,
    control::{DrainRequest, SwitchRequest},
};

/// The switches.
#[derive(Debug, Subcommand)]
pub(super) enum SwitchVerb {
    /// Switch DNS over TLS off: accept no new connections, and end each session when all its queries are answered
    ///
    /// XDP drops each SYN to the ports of listen.dot (reason `dot_off`); without XDP, a filter on the listeners does.
    /// DNS in clear (listen.do53) continues. `/health` and `/health/ready` answer 503. DNS over TLS stays off until
    /// `dotd enable`, also after a reload, a crash and an upgrade; with --persist also after a restart.
    #[command(after_help = DISABLE_EXAMPLES)]
    Disable {
        /// Stay off after a restart too
        #[arg(long)]
        persist: bool,
        #[command(flatten)]
        control: ControlArguments,
    },
    /// Switch DNS over TLS on again
    #[command(after_help = ENABLE_EXAMPLES)]
    Enable {
        #[command(flatten)]
        control: ControlArguments,
    },
    /// Tell load balancers to send no new clients
    ///
    /// `/health/ready` and `/health` (control.http) answer 503 until `dotd undrain`, or for the time of --for.
    /// dotd still serves new connections, and open ones continue. A reload keeps this state, a restart ends it.
    #[command(after_help = DRAIN_EXAMPLES)]
    Drain {
        /// Duration [default: until `dotd undrain`]
        #[arg(long = "for", value_name = "TIME", value_parser = parse_duration)]
        length: Option<Duration>,
        #[command(flatten)]
        control: ControlArguments,
    },
    /// End a drain: load balancers may send clients again
    #[command(after_help = UNDRAIN_EXAMPLES)]
    Undrain {
        #[command(flatten)]
        control: ControlArguments,
    },
}

/// Runs the verb.
pub(super) fn run(verb: SwitchVerb, config: Option<&Path>) -> Result<(), CliError> {
    let (request, control) = match verb {
        SwitchVerb::Disable { persist, control } => {
            return switch(SwitchRequest { is_on: false, persists: persist }, &control, config);
        }
        SwitchVerb::Enable { control } => {
            return switch(SwitchRequest { is_on: true, persists: false }, &control, config);
        }
        SwitchVerb::Drain { length, control } => {
            // A part of a second counts as one second: 0 would end at once.
            let seconds = length.map(|length| length.as_secs() + u64::from(length.subsec_nanos() > 0));
            (DrainRequest { is_on: true, seconds }, control)
        }
        SwitchVerb::Undrain { control } => (DrainRequest { is_on: false, seconds: None }, control),
    };
    let (body, done) =
        ask::tell::<DrainRequest>(&socket(&control, config), Method::POST, "/drain", &request)?;
    if control.json {
        return print(&format!("{body}\n"));
    }
    print(
        match (done.is_on, done.seconds) {
            (false, _) => "ready for clients\n".to_owned(),
            (true, None) => "drained until `dotd undrain`\n".to_owned(),
            (true, Some(seconds)) => format!("drained for {seconds} s\n"),
        }
        .as_str(),
    )
}

/// Switches DNS over TLS as a whole.
fn switch(request: SwitchRequest, control: &ControlArguments, config: Option<&Path>) -> Result<(), CliError> {
    let (body, done) = ask::tell::<SwitchRequest>(&socket(control, config), Method::POST, "/dot", &request)?;
    if control.json {
        return print(&format!("{body}\n"));
    }
    print(match (done.is_on, done.persists) {
        (true, _) => "DNS over TLS is on\n",
        (false, false) => "DNS over TLS is off until `dotd enable`, or a restart\n",
        (false, true) => "DNS over TLS is off until `dotd enable`, also after a restart\n",
    })
}
