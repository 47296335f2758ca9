//! `dotd xdp detach`: removes the kernel half of a dotd that has ended or, by force, of a running one.
//!
//! Before: an operator's command. After: one line, or the running dotd's report, shows the result.
//! Never: detaches a running dotd without asking it, because it would attach again.

use std::{env, path::Path, process::Command};

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

/// Why XDP stays attached after a unit's end: systemd starts it again. Without an answer of systemd's that is not assumed.
pub(super) fn reason_to_stay(unit: &str) -> Option<String> {
    // systemd sets it for ExecStopPost=; after a failure Restart= and OnFailure= say what follows.
    if env::var("SERVICE_RESULT").is_ok_and(|result| result != "success") {
        return Some(format!("{unit} failed: XDP stays attached until systemd gives up\n"));
    }
    let jobs =
        Command::new("systemctl").args(["list-jobs", "--no-legend", "--no-pager", "--", unit]).output();
    let jobs = jobs.ok().filter(|jobs| jobs.status.success())?;
    has_restart(&String::from_utf8_lossy(&jobs.stdout), unit)
        .then(|| format!("{unit} restarts: XDP stays attached\n"))
}

/// Whether a list of systemd's jobs (number, unit, type, state) has a restart of a unit.
fn has_restart(jobs: &str, unit: &str) -> bool {
    jobs.lines().any(|line| {
        let mut words = line.split_whitespace().skip(1);
        words.next() == Some(unit) && matches!(words.next(), Some("restart" | "try-restart"))
    })
}

fn said(cleared: Cleared, as_json: bool) -> String {
    match cleared {
        Cleared { links, maps } if as_json => format!("{{\"links\":{links},\"maps\":{maps}}}\n"),
        Cleared { links: 0, maps: 0 } => "nothing was attached or pinned\n".to_owned(),
        Cleared { links, maps } => format!("removed {links} links and {maps} other pins\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::has_restart;

    /// Goal: only a restart of the unit itself keeps XDP attached. Method: lists as systemctl prints them.
    #[test]
    fn a_restart_is_a_job_of_the_unit() {
        let jobs = "  147 other.service restart running\n  148 dotd.service restart running\n";
        assert!(has_restart(jobs, "dotd.service"));
        for none in ["", "148 dotd.service stop running\n", "1 dotd.service.d restart running\n", "restart\n"]
        {
            assert!(!has_restart(none, "dotd.service"), "{none}");
        }
    }
}
