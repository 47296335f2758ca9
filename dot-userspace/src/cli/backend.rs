//! `dotd backend drain`, `enable` and `weight`: change how the running dotd uses one backend.
//!
//! Before: an operator runs one of these commands. After: the running dotd uses the backend that way, until the
//! operator changes it again, or restarts dotd. A reload, an upgrade and a crash keep it.
//! Never: changes the config.

use std::path::Path;

use clap::Subcommand;
use hyper::Method;

use super::{
    arguments::ControlArguments,
    ask,
    error::CliError,
    examples::{BACKEND_DRAIN_EXAMPLES, BACKEND_ENABLE_EXAMPLES, BACKEND_WEIGHT_EXAMPLES},
    print, socket,
};
use crate::control::{BackendRequest, BackendSwitch};

/// What to do with a backend.
#[derive(Debug, Subcommand)]
pub(super) enum BackendVerb {
    /// Send a backend no new queries
    ///
    /// dotd waits for the queries that it has already sent. It sends the backend new queries only while no other
    /// backend is usable. A reload, an upgrade and a crash keep this setting; a restart does not.
    #[command(after_help = BACKEND_DRAIN_EXAMPLES)]
    Drain {
        /// Its name in `dotd status`: `name` in the config, or its address; without `/ADDRESS` all addresses of its name
        #[arg(value_name = "NAME")]
        name: String,
        #[command(flatten)]
        control: ControlArguments,
    },
    /// Use a backend as the config says: undo `drain` and `weight`
    #[command(after_help = BACKEND_ENABLE_EXAMPLES)]
    Enable {
        /// Its name in `dotd status`: `name` in the config, or its address; without `/ADDRESS` all addresses of its name
        #[arg(value_name = "NAME")]
        name: String,
        #[command(flatten)]
        control: ControlArguments,
    },
    /// Give a backend another share of the queries
    ///
    /// Replaces `weight` of the config. A reload, an upgrade and a crash keep this setting; a restart does not.
    #[command(after_help = BACKEND_WEIGHT_EXAMPLES)]
    Weight {
        /// Its name in `dotd status`: `name` in the config, or its address; without `/ADDRESS` all addresses of its name
        #[arg(value_name = "NAME")]
        name: String,
        /// 1 to 1000
        #[arg(value_name = "WEIGHT")]
        weight: u16,
        #[command(flatten)]
        control: ControlArguments,
    },
}

/// Runs one of the verbs.
pub(super) fn run(verb: BackendVerb, config: Option<&Path>) -> Result<(), CliError> {
    let (name, switch, control) = match verb {
        BackendVerb::Drain { name, control } => (name, BackendSwitch::Drain, control),
        BackendVerb::Enable { name, control } => (name, BackendSwitch::Enable, control),
        BackendVerb::Weight { name, weight, control } => (name, BackendSwitch::Weight(weight), control),
    };
    let request = BackendRequest { name, switch };
    let (body, done) =
        ask::tell::<BackendRequest>(&socket(&control, config), Method::POST, "/backend", &request)?;
    if control.json {
        return print(&format!("{body}\n"));
    }
    let name = done.name;
    print(&match done.switch {
        BackendSwitch::Drain => {
            format!("{name} gets no new queries until `dotd backend enable {name}`, or a restart\n")
        }
        BackendSwitch::Enable => format!("{name} is used as the config says\n"),
        BackendSwitch::Weight(weight) => {
            format!("{name} has weight {weight} until `dotd backend enable {name}`, or a restart\n")
        }
    })
}
