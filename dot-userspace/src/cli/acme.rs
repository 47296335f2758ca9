//! `dotd acme`: the certificate by ACME: what was reached, and a renewal now.
//!
//! Before: an operator types the verb. After: lines about names, authority, dates and the last failure; a renewal waits for its end.
//! Never: speaks to an authority itself: the ACME process does.

use std::{
    io::{self, Write as _},
    path::Path,
    thread::sleep,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use clap::Subcommand;
use hyper::Method;

use super::{
    arguments::ControlArguments,
    ask,
    error::CliError,
    examples::{ACME_RENEW_EXAMPLES, ACME_STATUS_EXAMPLES},
    print, show, socket,
};
use crate::acme::Standing;

const PATH: &str = "/acme";
/// How often the state is asked for during a renewal.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// How long an engine that has ended may have no successor.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Longer than an attempt.
const PATIENCE: Duration = Duration::from_secs(16 * 60);
/// A reload may have brought the section with an address of `acme.http_listen`, which waits for a restart.
const OFF: &str = "[acme] is off in the config by which dotd runs: it was switched off, or waits for a restart, as `dotd reload` says";

/// The verbs for the certificate by ACME.
#[derive(Debug, Subcommand)]
pub(super) enum AcmeVerb {
    /// Show the certificate by ACME: names, authority, end, next renewal, and why the last attempt failed
    #[command(after_help = ACME_STATUS_EXAMPLES)]
    Status {
        #[command(flatten)]
        control: ControlArguments,
    },
    /// Get a certificate now, and wait for it
    ///
    /// Authorities count requests: Let's Encrypt issues five certificates for the same names in a week, and refuses more. Use
    /// "letsencrypt-staging" while you try things out. If it fails, the old certificate serves on, the reason is printed, and the
    /// exit status is 1.
    #[command(after_help = ACME_RENEW_EXAMPLES)]
    Renew {
        #[command(flatten)]
        control: ControlArguments,
    },
}

/// Runs one of the verbs.
pub(super) fn run(verb: AcmeVerb, config: Option<&Path>) -> Result<(), CliError> {
    match verb {
        AcmeVerb::Status { control } => {
            let (body, standing) = ask::ask::<Option<Standing>>(&socket(&control, config), PATH)?;
            if control.json {
                return print(&format!("{body}\n"));
            }
            print(&standing.map_or_else(|| "[acme] is off\n".to_owned(), |standing| text(&standing)))
        }
        AcmeVerb::Renew { control } => renew(&control, config),
    }
}

fn renew(control: &ControlArguments, config: Option<&Path>) -> Result<(), CliError> {
    let socket = socket(control, config);
    let late = || {
        // If nobody reads it, the verb goes on.
        let _ = writeln!(
            io::stderr(),
            "dotd: no answer yet: another engine is starting, or dotd is busy; waiting"
        );
    };
    let before: Standing = ask::tell_patiently(&socket, (Method::POST, PATH), late)?;
    let (until, mut heard) = (Instant::now() + PATIENCE, Instant::now());
    while Instant::now() < until {
        let asked = ask::ask::<Option<Standing>>(&socket, PATH);
        if asked.as_ref().is_err_and(is_between_engines) && heard.elapsed() < SILENCE_MAX {
            sleep(LOOK_INTERVAL);
            continue;
        }
        heard = Instant::now();
        let (body, now) = asked?;
        let now = now.ok_or_else(|| CliError::Refused(OFF.into()))?;
        if now.issued > before.issued {
            return print(&if control.json { format!("{body}\n") } else { text(&now) });
        }
        if now.failed > before.failed {
            return Err(CliError::Refused(now.error.unwrap_or_default()));
        }
        sleep(LOOK_INTERVAL);
    }
    Err(CliError::Refused("no result; `dotd acme status` shows it later".into()))
}

/// Whether an answer may be missing because an engine has ended and the next one has not begun. The state is in a file.
fn is_between_engines(error: &CliError) -> bool {
    matches!(
        error,
        CliError::Late { .. } | CliError::NoAnswer { .. } | CliError::NobodyListens(_) | CliError::CutOff(_)
    )
}

/// The rows of `dotd status`, and of `dotd acme status` with more.
pub(super) fn row(standing: &Standing) -> String {
    let now = SystemTime::now();
    let until = |at: u64| {
        let seconds = i64::try_from(at).unwrap_or(i64::MAX) - i64::try_from(unix(now)).unwrap_or_default();
        if seconds > 0 { format!("in {}", show::duration(seconds)) } else { "now".to_owned() }
    };
    let next = standing.next.map(|at| format!(", next attempt {}", until(at))).unwrap_or_default();
    match &standing.error {
        Some(error) => format!("FAILING ({} times): {error}{next}", standing.failures),
        None if standing.state == "ordering" => "a certificate is being ordered".to_owned(),
        None if standing.not_after.is_none() => {
            format!("no certificate yet; the self-signed one is served{next}")
        }
        None => {
            let next = standing.next.map(|at| format!("renewal {}", until(at))).unwrap_or_default();
            format!("{}; {next}, {}", standing.names.join(", "), standing.because)
        }
    }
}

fn unix(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn text(standing: &Standing) -> String {
    let now = unix(SystemTime::now());
    let ago = |at: u64| show::duration(i64::try_from(now.saturating_sub(at)).unwrap_or(i64::MAX));
    let mut text = String::new();
    let mut line = |name: &str, value: &str| text += &format!("{name:<12} {value}\n");
    line("names", &standing.names.join(", "));
    let profile =
        if standing.profile.is_empty() { String::new() } else { format!(", profile {}", standing.profile) };
    line("authority", &format!("{} by {}{profile}", standing.directory, standing.challenge));
    line("state", &row(standing));
    if let Some(end) = standing.not_after {
        let left = i64::try_from(end).unwrap_or(i64::MAX) - i64::try_from(now).unwrap_or_default();
        let left =
            if left > 0 { format!("ends in {}", show::duration(left)) } else { "HAS ENDED".to_owned() };
        line("certificate", &left);
    }
    if let Some(at) = standing.last_success {
        line("issued", &format!("{} ago; {} in all", ago(at), standing.issued));
    }
    if let Some(at) = standing.last_failure {
        line("failed", &format!("{} ago; {} in all", ago(at), standing.failed));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: each state has a line that says what comes next. Method: no certificate, one, a failure, an order.
    #[test]
    fn each_state_is_said() {
        let now = unix(SystemTime::now());
        let none = Standing { state: "waiting".into(), next: Some(now), ..Standing::default() };
        assert_eq!(row(&none), "no certificate yet; the self-signed one is served, next attempt now");
        let names = vec!["dot.example".to_owned()];
        let one = Standing {
            names,
            not_after: Some(now + 90 * 86_400),
            next: Some(now + 60 * 86_400 + 9),
            because: "two thirds".into(),
            last_success: Some(now),
            issued: 3,
            state: "issued".into(),
            ..Standing::default()
        };
        assert!(row(&one).starts_with("dot.example; renewal in 60 d"), "{}", row(&one));
        assert!(text(&one).contains("; 3 in all\n") && text(&one).contains("ends in "), "{}", text(&one));
        let failing = Standing { error: Some("refused".into()), failures: 2, ..one.clone() };
        assert!(
            row(&failing).starts_with("FAILING (2 times): refused, next attempt in 60 d"),
            "{}",
            row(&failing)
        );
        assert_eq!(row(&Standing { state: "ordering".into(), ..one }), "a certificate is being ordered");
    }
}
