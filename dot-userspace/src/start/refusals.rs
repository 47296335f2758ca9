//! Logs a client that the kernel half refuses: once a minute for each reason and shown part of its address.
//!
//! Before: notices of the kernel half, each about a client prefix. After: one line in the log.
//! Holds: the lines of the last minute; the rate of the kernel half's notices limits their number.
//! Never: shows more of a client than its network, /24 or /56, whatever `log.client_address` says, because these
//! lines are above level debug.
//!
//! Source: RFC 8932 §5.1.1 (minimise what is logged).

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use dot_common::verdict::Action;

use super::process::Process;
use crate::{
    config::ClientAddress,
    worker::redacted_address::RedactedAddress,
    xdp::{Notices, Refusal, Xdp},
};

const MINUTE: Duration = Duration::from_secs(60);

/// The lines of the last minute, by reason and shown address.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    said: BTreeMap<(&'static str, String), Instant>,
}

impl Refusals {
    /// Writes the lines of these refusals.
    pub(super) fn say(&mut self, refusals: &[Refusal], how: ClientAddress, now: Instant) {
        for refusal in refusals {
            if let Some((client, words)) = self.line(refusal, how, now) {
                tracing::warn!(client, reason = refusal.verdict.reason.name(), "{words}");
            }
        }
    }

    /// The shown part of the client's address, and the text. `None`: the same line was written within the minute.
    fn line(
        &mut self,
        refusal: &Refusal,
        how: ClientAddress,
        now: Instant,
    ) -> Option<(String, &'static str)> {
        let how = if how == ClientAddress::None { how } else { ClientAddress::Prefix };
        let client = RedactedAddress(how, refusal.client.address()).to_string();
        self.said.retain(|_, said| now.duration_since(*said) < MINUTE);
        let key = (refusal.verdict.reason.name(), client.clone());
        if self.said.contains_key(&key) {
            return None;
        }
        self.said.insert(key, now);
        Some((client, words(refusal.verdict.action)))
    }
}

fn words(action: Action) -> &'static str {
    match action {
        Action::Pass => "xdp lets packets of a client pass",
        Action::Drop => "xdp drops packets of a client",
        Action::WouldDrop => "xdp would drop packets of a client, and counts",
        Action::Answer => "xdp answers queries of a client with TC=1",
    }
}

impl Process {
    /// Takes the channel of notices about clients that the kernel half refuses.
    pub(super) fn notices(&self) -> Option<Notices> {
        let notices = self.kernel_half().0.as_mut().map_or(Ok(None), Xdp::notices);
        notices.unwrap_or_else(|error| {
            tracing::warn!("refused clients are not announced by the kernel half: {error}");
            None
        })
    }
}

/// Waits for notices; forever if none are sent.
///
/// # Cancel safety
/// Yes.
pub(super) async fn heard(notices: &mut Option<Notices>) -> Vec<Refusal> {
    let Some(listener) = notices else { return std::future::pending().await };
    match listener.next().await {
        Ok(refusals) => refusals,
        Err(error) => {
            tracing::warn!("the kernel half's notices about refused clients have ended: {error}");
            *notices = None;
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use dot_common::{
        prefix::ClientPrefix,
        verdict::{Reason, Verdict},
    };

    use super::*;

    fn refusal(client: u32, reason: Reason) -> Refusal {
        Refusal { client: ClientPrefix::v4(client, 32), verdict: Verdict::drop(reason) }
    }

    /// Goal: a network is logged once a minute for each reason, and never a whole address; with `log.client_address =
    /// "none"` no address at all.
    /// Covers: C-73.
    #[test]
    fn a_network_is_named_once_a_minute() {
        let begun = Instant::now();
        let mut refusals = Refusals::default();
        let mut line = |client, reason, how, second| {
            let now = begun + Duration::from_secs(second);
            refusals.line(&refusal(client, reason), how, now).map(|(client, _)| client)
        };
        let network = Some("192.0.2.0/24".to_owned());
        assert_eq!(line(0xc000_0207, Reason::Banned, ClientAddress::Full, 0), network);
        assert_eq!(line(0xc000_0208, Reason::Banned, ClientAddress::Prefix, 1), None, "the same network");
        assert_eq!(line(0xc000_0208, Reason::UdpOnDot, ClientAddress::Prefix, 2), network);
        assert_eq!(line(0xc000_0207, Reason::Banned, ClientAddress::Prefix, 61), network);
        assert_eq!(line(0xc633_6407, Reason::Banned, ClientAddress::None, 62), Some("-".to_owned()));
        assert_eq!(line(0xcb00_7107, Reason::Banned, ClientAddress::None, 63), None);
    }
}
