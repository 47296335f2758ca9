//! `dotd upstream history|forgive`: the running dotd's history of TLS with its backends.
//!
//! Before: the words of an operator. After: a row for each server, or a suspicion has ended.
//! Never: reads the file in `state_dir`: the running dotd has newer values.

use std::{
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use clap::Subcommand;
use hyper::Method;

use super::{
    arguments::ControlArguments,
    ask,
    error::CliError,
    examples::{UPSTREAM_FORGIVE_EXAMPLES, UPSTREAM_HISTORY_EXAMPLES},
    print, show, show_answer, socket,
};
use crate::{
    backend::Remembered,
    control::{ForgiveRequest, TlsRow},
};

const PATH: &str = "/upstream";
const FORGIVE_PATH: &str = "/upstream/forgive";

/// The verbs for TLS with backends.
#[derive(Debug, Subcommand)]
pub(super) enum UpstreamVerb {
    /// Show since when each backend speaks TLS, with which key, and how it fails
    ///
    /// For each address and name: first and last handshake, version, the pin of its key and the previous one,
    /// failures since the last handshake by kind, and whether an attacker may be stripping its TLS.
    #[command(after_help = UPSTREAM_HISTORY_EXAMPLES)]
    History {
        #[command(flatten)]
        control: ControlArguments,
    },
    /// Confirm that a backend has no TLS any more, or that the reason for its failure is known
    ///
    /// Ends the state "downgrade suspected". If the config permits cleartext for this backend, queries then go to it
    /// in clear until it speaks TLS again.
    #[command(after_help = UPSTREAM_FORGIVE_EXAMPLES)]
    Forgive {
        /// Its name, or its address, as `dotd status` shows it
        #[arg(value_name = "NAME")]
        name: String,
        #[command(flatten)]
        control: ControlArguments,
    },
}

/// Runs one of the verbs.
pub(super) fn run(verb: UpstreamVerb, config: Option<&Path>) -> Result<(), CliError> {
    match verb {
        UpstreamVerb::History { control } => show_answer::<Vec<TlsRow>>(&control, config, PATH, table),
        UpstreamVerb::Forgive { name, control } => {
            let request = ForgiveRequest { name };
            let socket = socket(&control, config);
            let (body, row) = ask::tell::<TlsRow>(&socket, Method::POST, FORGIVE_PATH, &request)?;
            if control.json {
                return print(&format!("{body}\n"));
            }
            let mut said = format!("{}: no downgrade is suspected until it has spoken TLS again\n", row.name);
            warnings(&row).iter().for_each(|line| said += &format!("  {line}\n"));
            print(&said)
        }
    }
}

fn table(rows: &Vec<TlsRow>) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
    match rows.as_slice() {
        [] => "no backend is asked over TLS\n".to_owned(),
        rows => rows.iter().map(|row| lines(row, now)).collect(),
    }
}

/// The lines for a server.
fn lines(row: &TlsRow, now: u64) -> String {
    let TlsRow { name, address, server_name, is_configured, .. } = row;
    let address = if name == address { String::new() } else { format!(" {address}") };
    let server_name = if server_name.is_empty() { String::new() } else { format!(" ({server_name})") };
    let gone = if *is_configured { "" } else { ", in the config no more" };
    let mut text = format!("{name}{address}{server_name}{gone}\n");
    details(row, now).iter().for_each(|line| text += &format!("  {line}\n"));
    text
}

/// Warnings for the operator, for `dotd status` too.
pub(super) fn warnings(row: &TlsRow) -> Vec<String> {
    let mut lines = Vec::new();
    if row.remembered.suspected_since > 0 {
        let name = &row.name;
        lines.push(format!(
            "DOWNGRADE SUSPECTED: it spoke TLS lately and fails now; it is not asked in clear. `dotd upstream forgive {name}` \
             ends this"
        ));
    }
    if row.is_in_clear {
        lines.push("queries go to it IN CLEAR, because its TLS fails and the config permits that".to_owned());
    }
    lines
}

/// The history in words.
fn details(row: &TlsRow, now: u64) -> Vec<String> {
    let Remembered {
        first_success,
        last_success,
        name_spoke,
        version,
        pin,
        pin_before,
        pin_changed,
        failures,
        failing_since,
        forgiven,
        suspected_since: _,
    } = &row.remembered;
    let since = |then: u64| show::duration(i64::try_from(now.saturating_sub(then)).unwrap_or(i64::MAX));
    let ago = |then: u64| format!("{} ago", since(then));
    let mut lines = warnings(row);
    match last_success {
        0 => lines.push("has never spoken TLS".to_owned()),
        last => lines.push(format!("TLS {version}, first {}, last {}", ago(*first_success), ago(*last))),
    }
    if *name_spoke > 0 {
        lines.push(format!("another server of its name spoke TLS {}", ago(*name_spoke)));
    }
    if !pin.is_empty() {
        lines.push(format!("pin-sha256=\"{pin}\""));
    }
    if *pin_changed > 0 {
        lines.push(format!("the key changed {}; before: pin-sha256=\"{pin_before}\"", ago(*pin_changed)));
    }
    if *failing_since > 0 {
        let failures: Vec<_> = failures.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        lines.push(format!("fails for {}: {}", since(*failing_since), failures.join(", ")));
    }
    if *forgiven > 0 {
        lines.push(format!("forgiven {}", ago(*forgiven)));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: an operator reads since when a server speaks TLS, that its key changed, how it fails, and how to end a
    /// suspicion.
    /// Method: a row with everything, and one with nothing.
    #[test]
    fn rows_say_what_is_remembered() {
        let remembered = Remembered {
            first_success: 1000,
            last_success: 87_400,
            name_spoke: 87_450,
            version: "1.3".into(),
            pin: "NEW=".into(),
            pin_before: "OLD=".into(),
            pin_changed: 80_000,
            failures: [("closed".to_owned(), 3), ("silent".to_owned(), 1)].into(),
            failing_since: 87_430,
            suspected_since: 87_440,
            forgiven: 0,
        };
        let row = TlsRow {
            name: "office".into(),
            address: "192.0.2.1:853".into(),
            server_name: "ns.example".into(),
            is_configured: true,
            remembered,
            ..TlsRow::default()
        };
        let wanted = "\
office 192.0.2.1:853 (ns.example)
  DOWNGRADE SUSPECTED: it spoke TLS lately and fails now; it is not asked in clear. `dotd upstream forgive office` ends this
  TLS 1.3, first 1 day ago, last 1 min 40 s ago
  another server of its name spoke TLS 50 s ago
  pin-sha256=\"NEW=\"
  the key changed 2 h 5 min ago; before: pin-sha256=\"OLD=\"
  fails for 1 min 10 s: 3 closed, 1 silent
";
        assert_eq!(lines(&row, 87_500), wanted);
        let new =
            TlsRow { name: "192.0.2.1:853".into(), address: "192.0.2.1:853".into(), ..TlsRow::default() };
        let wanted = "192.0.2.1:853, in the config no more\n  has never spoken TLS\n";
        assert_eq!(lines(&new, 5), wanted);
        let in_clear = TlsRow { is_in_clear: true, is_configured: true, ..new };
        assert!(lines(&in_clear, 5).contains("IN CLEAR"));
        assert_eq!(table(&Vec::new()), "no backend is asked over TLS\n");
    }
}
