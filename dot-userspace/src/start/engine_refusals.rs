//! Logs the clients that the engine refuses: one line at once for a network and a reason, then one a minute with the
//! number of further refusals.
//!
//! Before: batches of the workers. After: lines of level info with the key of the config that would change the
//! refusal.
//! Holds: the lines of the last minute: at most [`LINES_MAX`] networks for each reason.
//! Never: shows more of a client than `log.client_address` permits, or its queries; lets one reason hide another.
//!
//! Source: RFC 8932 §5.1.1 (minimise what is logged).

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::{
    config::ClientAddress,
    events::{Refused, key_of},
    ledger::Counter,
    tls::alert,
    worker::redacted_address::RedactedAddress,
};

const MINUTE: Duration = Duration::from_secs(60);
/// Most lines of one reason within a minute: enough to see the networks, and at most half a line a second.
const LINES_MAX: usize = 30;

/// The lines of the last minute.
#[derive(Debug, Default)]
pub(super) struct EngineRefusals {
    said: BTreeMap<Subject, Said>,
    /// Refusals of networks beyond [`LINES_MAX`] that no line has reported yet, by reason.
    untold: BTreeMap<&'static str, u64>,
}

/// The subject of a line: reason, alert, and the permitted part of the client's address.
type Subject = (&'static str, Option<u8>, String);

#[derive(Debug)]
struct Said {
    reason: Counter,
    at: Instant,
    /// Refusals since the line.
    more: u64,
}

/// One line.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    client: String,
    reason: Counter,
    alert: Option<u8>,
    count: u64,
    untold: Option<u64>,
}

impl EngineRefusals {
    /// Writes the lines of a batch.
    pub(super) fn say(&mut self, refused: &[Refused], how: ClientAddress, now: Instant) {
        refused.iter().filter_map(|refused| self.note(refused, how, now)).for_each(|line| line.write());
    }

    /// Writes how many more refusals there were, once the minute of a line is over. Call it every second or so.
    pub(super) fn say_more(&mut self, now: Instant) {
        self.due(now).iter().for_each(Line::write);
    }

    fn note(&mut self, refused: &Refused, how: ClientAddress, now: Instant) -> Option<Line> {
        let client = RedactedAddress(how, refused.client).to_string();
        let (reason, count) = (refused.reason, u64::from(refused.count));
        let subject = (reason.label(), refused.alert, client);
        if let Some(said) = self.said.get_mut(&subject) {
            said.more += count;
            return None;
        }
        let untold = self.untold.entry(reason.label()).or_default();
        if self.said.values().filter(|said| said.reason == reason).count() >= LINES_MAX {
            *untold += count;
            return None;
        }
        let untold = Some(std::mem::take(untold)).filter(|untold| *untold > 0);
        let (_, alert, client) = subject.clone();
        self.said.insert(subject, Said { reason, at: now, more: 0 });
        Some(Line { client, reason, alert, count, untold })
    }

    fn due(&mut self, now: Instant) -> Vec<Line> {
        let mut lines = Vec::new();
        let untold = &mut self.untold;
        self.said.retain(|(reason, alert, client), said| {
            if now.duration_since(said.at) < MINUTE {
                return true;
            }
            if said.more == 0 {
                return false;
            }
            let untold = untold.get_mut(reason).map(std::mem::take).filter(|untold| *untold > 0);
            let (count, client) = (std::mem::take(&mut said.more), client.clone());
            lines.push(Line { client, reason: said.reason, alert: *alert, count, untold });
            said.at = now;
            true
        });
        lines
    }
}

impl Line {
    fn write(&self) {
        let Self { client, reason, alert, count, untold } = self;
        let alert = alert.map(alert::name);
        let (reason, key, words) = (reason.label(), key_of(*reason), words(*reason));
        tracing::info!(client, reason, alert, key, count, of_other_clients = untold, "{words}");
    }
}

fn words(reason: Counter) -> &'static str {
    match reason.family() {
        "connections" => "refused: a connection",
        "handshakes" => "refused: a handshake",
        "session_ends" => "refused: a session was ended",
        "access" => "refused: a client that may not ask",
        "misuse" => "refused: queries are misuse",
        "owed" => "refused: an answer was not kept",
        _ => "refused: a query",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(client: &str, reason: Counter, count: u32) -> Refused {
        Refused { client: client.parse().unwrap(), reason, alert: None, count }
    }

    /// Goal: a network is logged at once, then once a minute with the number since, and no more once it stops; the
    /// address is shown as `log.client_address` says. Method: two addresses of one network, times given by the test.
    ///
    #[test]
    fn a_network_is_named_once_a_minute() {
        let (mut said, begun) = (EngineRefusals::default(), Instant::now());
        let at = |seconds| begun + Duration::from_secs(seconds);
        let reason = Counter::RefusedPrefix;
        let first = said.note(&refused("192.0.2.7", reason, 2), ClientAddress::Prefix, at(0)).unwrap();
        assert_eq!((first.client.as_str(), first.count, first.untold), ("192.0.2.0/24", 2, None));
        assert_eq!(said.note(&refused("192.0.2.8", reason, 5), ClientAddress::Prefix, at(1)), None);
        assert_eq!(said.due(at(59)), []);
        assert_eq!(said.due(at(60)), [Line { count: 5, ..first }]);
        assert_eq!(said.due(at(119)).len() + said.due(at(120)).len(), 0);
        assert!(said.said.is_empty());
        for (how, shown) in [(ClientAddress::None, "-"), (ClientAddress::Full, "192.0.2.7")] {
            assert_eq!(said.note(&refused("192.0.2.7", reason, 1), how, at(200)).unwrap().client, shown);
        }
    }

    /// Goal: a flood of one reason causes a bounded number of lines, which say how many were omitted, and hides no
    /// other reason. Method: more networks than lines.
    #[test]
    fn a_flood_hides_no_other_reason() {
        let (mut said, begun) = (EngineRefusals::default(), Instant::now());
        let mut note = |number: usize, reason, now| {
            let client = format!("198.51.{number}.1");
            said.note(&refused(&client, reason, 1), ClientAddress::Prefix, now)
        };
        let lines = (0..200).filter_map(|number| note(number, Counter::RefusedTotal, begun)).count();
        assert_eq!(lines, LINES_MAX);
        assert!(note(7, Counter::HandshakeNotTls, begun).is_some());
        said.due(begun + MINUTE);
        let line = said.note(
            &refused("203.0.113.1", Counter::RefusedTotal, 1),
            ClientAddress::Prefix,
            begun + MINUTE,
        );
        assert_eq!(line.unwrap().untold, Some(170));
    }
}
