//! Module `config`: the text of `dotd.toml` becomes a checked [`Config`], or a line that says what to change.
//!
//! Before: a file, or none. After: `start` gives each module its own part.
//! Never: opens a socket, keeps state, or lets an unknown key pass.

mod check;
mod consistency;
mod consistency_access;
mod consistency_acme;
mod consistency_backend;
mod consistency_dnstap;
mod consistency_misuse;
mod consistency_otlp;
mod consistency_policy;
mod consistency_tenant;
mod defaults;
mod duration;
mod error;
pub mod flat;
mod identity;
mod levels;
pub mod limit;
mod load;
mod messages;
mod model;
mod model_access;
mod model_acme;
mod model_address;
mod model_discovery;
mod model_dnstap;
mod model_log;
mod model_misuse;
mod model_otlp;
mod model_policy;
mod model_session;
mod model_tenant;
mod model_xdp;
mod names;
mod parse;
mod paths;
mod range;
mod reachable;
mod sandbox;
mod shown;
mod source;

#[cfg(test)]
mod tests;

pub use consistency_backend::why_not_asked;
pub use duration::parse as parse_duration;
pub use error::{ConfigErrors, Mistake};
pub use identity::Identity;
pub use limit::Limit;
pub use load::{DEFAULT_PATH, Placed, Read, load, load_placed, load_what_is_sound, parse, read};
pub use model::*;
pub use model_access::*;
pub use model_acme::*;
pub use model_address::*;
pub use model_discovery::*;
pub use model_dnstap::*;
pub use model_log::*;
pub use model_misuse::*;
pub use model_otlp::*;
pub use model_policy::*;
pub use model_session::*;
pub use model_tenant::*;
pub use model_xdp::*;
pub use sandbox::Sandbox;
pub use shown::{ConfigRow, rows};

/// Name of the control socket in `server.run_dir`.
pub const CONTROL_SOCKET: &str = "control.sock";
