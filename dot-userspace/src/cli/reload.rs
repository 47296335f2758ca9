//! `dotd reload`: makes the running dotd read config and certificates again. `systemctl reload` runs it.
//!
//! Before: an operator has changed the config. After: it is in effect; or a part of it is not, the reason is printed
//! and the exit status is 1.
//! Never: relies on a signal, which has no answer.

use std::path::Path;

use hyper::Method;

use super::{arguments::ControlArguments, ask, error::CliError, print, socket};
use crate::control::Reloaded;

/// Runs the verb.
pub(super) fn run(control: &ControlArguments, config: Option<&Path>) -> Result<(), CliError> {
    let socket = socket(control, config);
    let (body, reloaded) = ask::tell::<Reloaded>(&socket, Method::POST, "/reload", &())?;
    if control.json {
        print(&format!("{body}\n"))?;
    } else {
        let waiting =
            reloaded.waiting.iter().map(|key| format!("{key} takes effect when dotd is restarted\n"));
        print(&("reloaded\n".to_owned() + &waiting.collect::<String>()))?;
    }
    let unusable = reloaded.unusable_certificates.into_iter().map(|certificate| certificate.reason);
    let unusable: Vec<_> = unusable.collect();
    if unusable.is_empty() { Ok(()) } else { Err(CliError::Certificates(unusable)) }
}
