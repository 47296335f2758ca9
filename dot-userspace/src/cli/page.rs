//! `dotd page`: the URL of the running dotd's page, with its token.
//!
//! Before: an operator on this machine. After: a URL for a browser. Never: opens a browser.

use std::path::Path;

use super::{arguments::ControlArguments, ask, error::CliError, print, socket};
use crate::control::PageAddress;

/// Runs the verb.
pub(super) fn run(control: &ControlArguments, config: Option<&Path>) -> Result<(), CliError> {
    let (body, address) = ask::ask::<PageAddress>(&socket(control, config), "/page")?;
    if control.json { print(&format!("{body}\n")) } else { print(&format!("{}\n", address.url)) }
}
