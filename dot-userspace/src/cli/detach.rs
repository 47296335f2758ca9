//! `dotd xdp detach`: removes the kernel half of a dotd that has ended or, by force, of a running one.
//!
//! Before: an operator's command. After: one line, or the running dotd's report, shows the result.
//! Never: detaches a running dotd without asking it, because it would attach again.

use std::path::Path;

use hyper::Method;

use super::{arguments::ControlArguments, ask, error::CliError, print, show, socket};
use crate::xdp::{self, Cleared, Report, XdpError};

/// Runs the verb.
pub(super) fn run(force: bool, control: &ControlArguments, config: Option<&Path>) -> Result<(), CliError> {
    match xdp::clear(force) {
        Ok(cleared) => print(&said(cleared, control.json)),
        Err(XdpError::Locked { .. }) if force => {
            let socket = socket(control, config);
            let (body, report) = ask::tell::<Report>(&socket, Method::DELETE, "/xdp", &())?;
            print(&if control.json { format!("{body}\n") } else { show::xdp(&report) })
        }
        Err(XdpError::Locked { .. }) => Err(CliError::Running),
        Err(error) => Err(error.into()),
    }
}

fn said(cleared: Cleared, as_json: bool) -> String {
    match cleared {
        Cleared { links, maps } if as_json => format!("{{\"links\":{links},\"maps\":{maps}}}\n"),
        Cleared { links: 0, maps: 0 } => "nothing was attached or pinned\n".to_owned(),
        Cleared { links, maps } => format!("removed {links} links and {maps} other pins\n"),
    }
}
