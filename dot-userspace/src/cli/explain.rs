//! `dotd explain`: the state of one client in dotd, and the keys that would change it.
//!
//! Before: an address or a prefix. After: the running dotd's answer, with a line for each fact.
//! Never: judges the client by itself.

use std::{fmt::Write as _, path::Path};

use hyper::Method;

use super::{arguments::ControlArguments, ask, error::CliError, print, show, socket};
use crate::{
    control::{ExplainRequest, Explanation},
    xdp::{ClientReport, RateState},
};

/// Runs the verb.
pub(super) fn run(client: String, control: &ControlArguments, config: Option<&Path>) -> Result<(), CliError> {
    let request = ExplainRequest { client };
    let socket = socket(control, config);
    let (body, explained) = ask::tell::<Explanation>(&socket, Method::POST, "/explain", &request)?;
    if control.json { print(&format!("{body}\n")) } else { print(&text(&explained)) }
}

/// A line for each fact; without a limit there is no line.
fn text(explained: &Explanation) -> String {
    let mut text = String::new();
    let mut line = |head: &str, fact: &str| {
        // Writing to a String does not fail.
        let _ = writeln!(text, "{head:<12} {fact}");
    };
    line("client", &format!("limits count {} as one client", explained.prefix));
    if explained.lists.is_empty() {
        line("lists", "on none");
    }
    for list in &explained.lists {
        let entry = list.entry.as_ref().map(|entry| format!(" has {entry}")).unwrap_or_default();
        line("lists", &format!("{}{entry}: {}", list.key, list.effect));
    }
    match &explained.xdp {
        Some(xdp) => of_xdp(xdp, &mut line),
        None => line("xdp", "off: no ban, budget or rate of [xdp.limit] is in effect"),
    }
    explained.rates.iter().for_each(|rate| of_rate(rate, &mut line));
    let (now, most) = (explained.connections, explained.connections_max);
    line("connections", &format!("{now} of {most} (session.connections_per_prefix_max)"));
    line("sessions", &format!("{} open", explained.sessions_open));
    for session in &explained.sessions {
        let refused =
            session.refused.as_ref().map(|reason| format!(", REFUSED: {reason}")).unwrap_or_default();
        let tenant = session.tenant.as_ref().map(|tenant| format!(", tenant {tenant}")).unwrap_or_default();
        let open = show::duration(i64::try_from(session.open_seconds).unwrap_or(i64::MAX));
        let fact = format!(
            "{}: {}, {}, open for {open}, {} in flight, {} octets not taken{tenant}{refused}",
            session.session, session.client, session.security, session.in_flight, session.waiting_octets
        );
        line("", &fact);
    }
    if explained.sessions_open > explained.sessions.len() {
        line("", "more sessions are not shown");
    }
    for row in &explained.misuses {
        line("misuse", super::misuse::line(row).trim_end());
    }
    if explained.refusals.is_empty() {
        line("refused", "no recent refusal");
    }
    for row in &explained.refusals {
        let key = row.key.as_ref().map(|key| format!(" ({key})")).unwrap_or_default();
        let ago = show::duration(i64::try_from(row.seconds_ago).unwrap_or(i64::MAX));
        line("refused", &format!("{} by {}, {} times, last {ago} ago{key}", row.reason, row.by, row.count));
    }
    if explained.workers_silent > 0 {
        line("workers", &format!("{} did not answer: their sessions are missing", explained.workers_silent));
    }
    text
}

fn of_xdp(xdp: &ClientReport, line: &mut impl FnMut(&str, &str)) {
    let left = |seconds: u64| show::duration(i64::try_from(seconds).unwrap_or(i64::MAX));
    match &xdp.ban {
        Some(ban) => {
            let words = if ban.reason.is_empty() { String::new() } else { format!(" ({})", ban.reason) };
            let fact = format!(
                "{}{words}, {} hits, {} left; `dotd ban del {}` lifts it",
                ban.cause,
                ban.hits,
                left(ban.seconds_left),
                ban.prefix
            );
            line("ban", &fact);
        }
        None => line("ban", "none"),
    }
    let key = "(xdp.limit.handshake_cost_per_second)";
    match (xdp.budget_spent_seconds, xdp.budget_percent) {
        (Some(seconds), _) => {
            line("budget", &format!("spent: new connections are dropped for {} {key}", left(seconds)));
        }
        (None, Some(percent)) => line("budget", &format!("{percent} % left for handshakes {key}")),
        (None, None) => {}
    }
    if let Some(seconds) = xdp.wide_spent_seconds {
        let key = "(xdp.limit.wide_connections_per_second, wide_cost_per_second)";
        let fact = format!("{} has spent its budget: see wide_cost, for {} {key}", xdp.wide, left(seconds));
        line("network", &fact);
    }
    if let Some(seconds) = xdp.proven_seconds {
        line("address", &format!("proved by handshakes; the proof is valid for {}", left(seconds)));
    }
    if let Some(seconds) = xdp.excessive_seconds {
        let key = "(xdp.limit.syn_per_second)";
        line("address", &format!("over its rate by connections for {} {key}", left(seconds)));
    }
    xdp.rates.iter().for_each(|rate| of_rate(rate, line));
}

fn of_rate(rate: &RateState, line: &mut impl FnMut(&str, &str)) {
    let RateState { what, key, left, burst } = rate;
    line("rate", &format!("{left} of {burst} {what} at once ({key})"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{Listed, RefusalRow};

    /// Goal: each fact has a line, and each limit its key. Method: a client with every fact. Covers: C-521
    #[test]
    fn facts_have_lines() {
        let explained = Explanation {
            prefix: "192.0.2.7/32".into(),
            lists: vec![Listed {
                key: "access.allow".into(),
                entry: None,
                effect: "it is not on the list".into(),
            }],
            xdp: Some(ClientReport {
                budget_spent_seconds: Some(61),
                rates: vec![RateState { what: "new connections".into(), key: "k".into(), left: 0, burst: 5 }],
                ..ClientReport::default()
            }),
            connections: 2,
            connections_max: 500,
            sessions_open: 3,
            refusals: vec![RefusalRow {
                by: "engine".into(),
                reason: "failed_not_tls".into(),
                count: 7,
                seconds_ago: 3,
                key: Some("k".into()),
            }],
            ..Explanation::default()
        };
        let wanted = "\
client       limits count 192.0.2.7/32 as one client
lists        access.allow: it is not on the list
ban          none
budget       spent: new connections are dropped for 1 min 1 s (xdp.limit.handshake_cost_per_second)
rate         0 of 5 new connections at once (k)
connections  2 of 500 (session.connections_per_prefix_max)
sessions     3 open
             more sessions are not shown
refused      failed_not_tls by engine, 7 times, last 3 s ago (k)
";
        assert_eq!(text(&explained), wanted);
    }
}
