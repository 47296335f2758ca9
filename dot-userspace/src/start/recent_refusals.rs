//! The last refusals of each client, for `dotd explain`.
//!
//! Before: batches of the workers, notices of the kernel half. After: the rows of a client, the latest first.
//! Holds: at most [`ROWS_MAX`] pairs of client and reason; the one that was refused longest ago is replaced.
//! Never: outlives the process, or is written to a log.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    time::Instant,
};

use dot_common::prefix::ClientPrefix;
use ipnet::IpNet;

use crate::{
    control::RefusalRow,
    events::{Refused, key_of, key_of_packets},
    xdp::Refusal,
};

/// Most rows: some hundred octets each.
const ROWS_MAX: usize = 4096;

/// The half that refused, and the reason.
type Cause = (&'static str, &'static str);

/// The refusals of clients.
#[derive(Debug, Default)]
pub(super) struct RecentRefusals {
    rows: HashMap<(ClientPrefix, Cause), Row>,
    by_last: BTreeSet<(u64, ClientPrefix, Cause)>,
    number: u64,
}

#[derive(Debug)]
struct Row {
    count: u64,
    last: Instant,
    number: u64,
    key: Option<&'static str>,
}

impl RecentRefusals {
    /// Notes the workers' refusals; `bits` are the lengths of client prefixes.
    pub(super) fn note(&mut self, refused: &[Refused], bits: (u8, u8), now: Instant) {
        for one in refused {
            let client = ClientPrefix::of(one.client, bits.0, bits.1);
            self.add(client, ("engine", one.reason.label()), one.count.into(), key_of(one.reason), now);
        }
    }

    /// Notes the kernel half's refusals.
    pub(super) fn note_packets(&mut self, refusals: &[Refusal], now: Instant) {
        for one in refusals {
            let reason = one.verdict.reason.name();
            self.add(one.client, ("xdp", reason), 1, key_of_packets(reason), now);
        }
    }

    fn add(
        &mut self,
        client: ClientPrefix,
        cause: Cause,
        count: u64,
        key: Option<&'static str>,
        now: Instant,
    ) {
        self.number += 1;
        let number = self.number;
        let row = self.rows.entry((client, cause)).or_insert(Row { count: 0, last: now, number, key });
        self.by_last.remove(&(row.number, client, cause));
        row.count = row.count.saturating_add(count);
        (row.last, row.number) = (now, number);
        self.by_last.insert((number, client, cause));
        if self.rows.len() > ROWS_MAX
            && let Some((_, client, cause)) = self.by_last.pop_first()
        {
            self.rows.remove(&(client, cause));
        }
    }

    /// The rows of clients within `meant`, which may be narrower than a client prefix.
    pub(super) fn of(&self, meant: IpNet, own: ClientPrefix, now: Instant) -> Vec<RefusalRow> {
        let is_meant = |client: &ClientPrefix| *client == own || meant.contains::<&IpAddr>(&client.address());
        let rows = self.by_last.iter().rev().filter(|(_, client, _)| is_meant(client));
        let rows = rows.filter_map(|(_, client, cause)| {
            let row = self.rows.get(&(*client, *cause))?;
            Some(RefusalRow {
                by: cause.0.to_owned(),
                reason: cause.1.to_owned(),
                count: row.count,
                seconds_ago: now.duration_since(row.last).as_secs(),
                key: row.key.map(str::to_owned),
            })
        });
        rows.take(SHOWN_MAX).collect()
    }
}

/// Most rows of an answer.
const SHOWN_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::ledger::Counter;

    fn refused(client: u32, reason: Counter) -> Refused {
        Refused { client: Ipv4Addr::from_bits(client).into(), reason, alert: None, count: 2 }
    }

    /// Goal: a client has a row for each reason, the latest first; a flood of others is bounded and replaces the
    /// oldest rows. Method: one client, then more clients than there are rows. Covers: C-521
    #[test]
    fn rows_are_the_last_ones() {
        let (mut recent, now) = (RecentRefusals::default(), Instant::now());
        let own = |client: u32| ClientPrefix::v4(client, 32);
        let meant = |client: u32| IpNet::new(Ipv4Addr::from_bits(client).into(), 32).unwrap();
        for reason in [Counter::RefusedPrefix, Counter::HandshakeNotTls, Counter::RefusedPrefix] {
            recent.note(&[refused(1, reason)], (32, 56), now);
        }
        let rows = recent.of(meant(1), own(1), now);
        let seen: Vec<_> = rows.iter().map(|row| (row.reason.as_str(), row.count)).collect();
        assert_eq!(seen, [("refused_prefix_cap", 4), ("failed_not_tls", 2)]);
        assert_eq!(rows[0].key.as_deref(), Some("session.connections_per_prefix_max"));
        for client in 2..=u32::try_from(ROWS_MAX).unwrap() {
            recent.note(&[refused(client, Counter::RefusedTotal)], (32, 56), now);
        }
        assert_eq!((recent.rows.len(), recent.by_last.len()), (ROWS_MAX, ROWS_MAX));
        assert_eq!(recent.of(meant(1), own(1), now).len(), 1, "the longest ago is gone");
    }
}
