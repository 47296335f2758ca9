//! `dotd trace`: the events of a client as they happen.
//!
//! Before: a client's address or prefix, or a session. After: a line for each event, until the operator ends it.
//! Never: keeps events that it cannot print: dotd counts the events that a slow reader loses.

use std::{path::Path, time::Duration};

use super::{arguments::ControlArguments, ask, error::CliError, print, socket};
use crate::{
    control::TraceRequest,
    events::{TraceEvent, What},
    tls::alert,
};

/// The options of the command line.
pub(super) struct Wish {
    pub(super) request: TraceRequest,
    /// End after this many events.
    pub(super) count: Option<u64>,
    /// End after this time.
    pub(super) length: Option<Duration>,
}

/// Runs the verb.
pub(super) fn run(wish: Wish, control: &ControlArguments, config: Option<&Path>) -> Result<(), CliError> {
    let (mut left, is_json) = (wish.count, control.json);
    ask::follow(&socket(control, config), "/trace", &wish.request, wish.length, |line| {
        let text = if is_json { Some(format!("{line}\n")) } else { words(line) };
        let is_event = !matches!(serde_json::from_str(line), Ok(TraceEvent { what: What::Lost { .. }, .. }));
        if let Some(text) = text {
            print(&text)?;
        }
        left = left.map(|left| left.saturating_sub(u64::from(is_event)));
        Ok(left != Some(0))
    })
}

/// A line of the text output. `None`: there is nothing to print.
fn words(line: &str) -> Option<String> {
    let event: TraceEvent = serde_json::from_str(line).ok()?;
    let sentence = sentence(&event.what)?;
    let seconds = event.at_us / 1_000_000;
    let (hours, minutes, rest) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let session = event.session.map(|session| format!(" [{session}]")).unwrap_or_default();
    let client = event.client;
    Some(format!(
        "{hours:02}:{minutes:02}:{rest:02}.{:06} {client}{session} {sentence}\n",
        event.at_us % 1_000_000
    ))
}

/// An event in words; `None`: there is nothing to say.
pub(super) fn sentence(what: &What) -> Option<String> {
    let optional = |name: &str, value: &Option<String>| {
        value.as_ref().map(|value| format!(" {name} {value}")).unwrap_or_default()
    };
    let words = match what {
        What::Packet { to, verdict, reason, key, left, burst } => {
            let rate = left.zip(*burst).map(|(left, burst)| format!(", {left} of {burst} left at once"));
            format!("xdp: {verdict} {reason} to {to}{}{}", optional("key", key), rate.unwrap_or_default())
        }
        What::Accepted { listener, syn_us } => {
            let since = syn_us.map(|syn_us| format!(", {syn_us} µs after its SYN")).unwrap_or_default();
            format!("accepted at {listener}{since}")
        }
        What::Refused { reason, key, alert } => {
            let alert = alert.map(|alert| alert::name(alert).to_owned());
            format!("refused {reason}{}{}", optional("alert", &alert), optional("key", key))
        }
        What::Handshake { tls, resumed, alpn, server_name, offered, fingerprint, hello_us, handshake_us } => {
            let kind = if *resumed { "resumed" } else { "full" };
            let alpn = if *alpn { ", alpn dot" } else { "" };
            let name =
                optional("for", server_name) + &optional("offered", offered) + &optional("ja4", fingerprint);
            format!(
                "handshake TLS {tls} {kind}{alpn}{name}: hello after {hello_us} µs, done {handshake_us} µs later"
            )
        }
        What::Session => "session begins".to_owned(),
        What::Query { id, octets, qtype, name, .. } => {
            let kind = qtype.map(|qtype| format!(" type {qtype}")).unwrap_or_default();
            format!("query {id}{kind}{} of {octets} octets", optional("for", name))
        }
        What::Misuse { kind, action } => format!("misuse {kind}: {action}"),
        What::Response { id, octets, rcode, by, took_us, backend, tries } => {
            let took = took_us.map(|took| format!(" after {took} µs")).unwrap_or_default();
            let tries =
                tries.filter(|tries| *tries > 1).map(|tries| format!(" at try {tries}")).unwrap_or_default();
            let from = optional("by", backend);
            format!("response {id} rcode {rcode} {by}{from}{tries} of {octets} octets{took}")
        }
        What::Written { octets } => format!("written {octets} octets"),
        What::Ended { end, queries, open_us } => {
            format!("ended {end} after {queries} queries and {:.3} s", *open_us as f64 / 1e6)
        }
        What::Lost { events: 0 } => return None,
        What::Lost { events } => format!("{events} events were lost so far, because the reader was too slow"),
    };
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: events read as sentences, and a line without an event prints nothing. Method: three events. Covers:
    /// C-523
    #[test]
    fn events_are_lines() {
        let line = r#"{"at_us":3661000042,"worker":0,"client":"192.0.2.7:1000","session":"0.4","event":"query","id":7,"octets":40,"qtype":28}"#;
        assert_eq!(
            words(line).unwrap(),
            "01:01:01.000042 192.0.2.7:1000 [0.4] query 7 type 28 of 40 octets\n"
        );
        let misuse =
            words(r#"{"at_us":0,"client":"a","event":"misuse","kind":"tunnel","action":"close"}"#).unwrap();
        assert!(misuse.ends_with(" a misuse tunnel: close\n"), "{misuse}");
        assert_eq!(words(r#"{"at_us":0,"client":"","event":"lost","events":0}"#), None);
        let lost = words(r#"{"at_us":0,"client":"","event":"lost","events":3}"#).unwrap();
        assert!(lost.contains("3 events were lost"));
    }
}
