//! The counts of previous engines, which continue in the engine that serves after an upgrade.
//!
//! Before: the previous engine has sent its counts. After: snapshots of the next one contain them.
//! Holds: counters by name; a name that this build does not have is left out.
//! Never: contains a gauge, which belongs to one engine; breaks an equation of the ledger: whatever an engine did not finish is
//! counted by the way in which it ended.

use serde::{Deserialize, Serialize};

use super::{ControlCounters, Counter, Snapshot};

/// Families that say what there is now.
const GAUGES: [&str; 7] = [
    "connections_open",
    "lingering",
    "owed_octets",
    "backend_outstanding",
    "cache_entries",
    "cache_octets",
    "cache_waiting",
];

/// Counts of the engines before.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Past(Snapshot);

impl Past {
    /// What an engine has counted that goes on.
    #[must_use]
    pub fn so_far(snapshot: Snapshot) -> Self {
        let mut own = Snapshot { packets: Vec::new(), latency: Vec::new(), queues: None, ..snapshot };
        own.engine.retain(|family, _| !GAUGES.contains(&family.as_str()));
        Self(own)
    }

    /// The counts of an engine that has ended. Connections that were cut, and queries whose answers no client got, are counted with
    /// the ends of such connections and queries.
    #[must_use]
    pub fn of(snapshot: Snapshot) -> Self {
        let mut own = Self::so_far(snapshot).0;
        let difference = own.difference();
        for (counter, count) in [
            (Counter::EndDrain, difference.connections),
            (Counter::DroppedPanic, difference.queries),
            (Counter::DroppedClientGone, difference.responses),
        ] {
            let cell = own.engine.entry(counter.family().into()).or_default().entry(counter.label().into());
            let cell = cell.or_default();
            *cell = cell.wrapping_add(count.cast_unsigned());
        }
        Self(own)
    }

    /// Adds them to what this engine has counted itself.
    pub fn add_to(&self, snapshot: &mut Snapshot) {
        add(&self.0.engine, &mut snapshot.engine);
        add(&self.0.backends, &mut snapshot.backends);
        let ControlCounters {
            reloads_ok,
            reloads_failed,
            log_lines_lost,
            charges_lost,
            events_lost,
            dnstap_written,
            dnstap_lost,
            otlp_written,
            otlp_lost,
        } = &mut snapshot.control;
        let past = self.0.control;
        for (own, past) in [
            (reloads_ok, past.reloads_ok),
            (reloads_failed, past.reloads_failed),
            (log_lines_lost, past.log_lines_lost),
            (charges_lost, past.charges_lost),
            (events_lost, past.events_lost),
            (dnstap_written, past.dnstap_written),
            (dnstap_lost, past.dnstap_lost),
            (otlp_written, past.otlp_written),
            (otlp_lost, past.otlp_lost),
        ] {
            *own = own.wrapping_add(past);
        }
    }
}

/// Counts by family, or backend, and label.
type Counts = std::collections::BTreeMap<String, std::collections::BTreeMap<String, u64>>;

fn add(past: &Counts, own: &mut Counts) {
    for (family, labels) in own.iter_mut().filter(|(family, _)| !GAUGES.contains(&family.as_str())) {
        let Some(past) = past.get(family) else { continue };
        for (label, count) in labels {
            *count = count.wrapping_add(past.get(label).copied().unwrap_or(0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::WorkerCounters;

    fn snapshot(counts: &[(Counter, u64)]) -> Snapshot {
        let worker = WorkerCounters::default();
        counts.iter().for_each(|(counter, count)| worker.add(*counter, *count));
        Snapshot::collect(Vec::new(), std::slice::from_ref(&worker), ControlCounters::default())
    }

    /// Goal: no gauge goes on. Method: each counter whose help calls it one.
    #[test]
    fn gauges_are_of_one_engine() {
        for counter in Counter::ALL {
            let is_gauge = counter.help().ends_with(": a gauge");
            assert_eq!(GAUGES.contains(&counter.family()), is_gauge, "{counter:?}");
        }
    }

    /// Goal: the ledger of the next engine is even, whatever the one before left unfinished, and has the counts of both. Method: an
    /// engine that ended with a connection that was cut, one that moved, and a query at a backend; the next one with that session;
    /// a third one.
    #[test]
    fn the_ledger_goes_on() {
        let first = snapshot(&[
            (Counter::Accepted, 5),
            (Counter::EndMoved, 1),
            (Counter::EndClient, 3),
            (Counter::Received, 9),
            (Counter::Forwarded, 9),
            (Counter::RcodeNoError, 8),
            (Counter::BackendOutstanding, 1),
            (Counter::Open, 1),
        ]);
        assert!(first.difference().is_zero());
        let mut second = snapshot(&[
            (Counter::Adopted, 1),
            (Counter::Open, 1),
            (Counter::Received, 1),
            (Counter::Responded, 1),
        ]);
        second.engine.get_mut("responses").unwrap().insert("REFUSED".into(), 1);
        let text = serde_json::to_string(&Past::of(first)).unwrap();
        serde_json::from_str::<Past>(&text).unwrap().add_to(&mut second);
        assert!(second.difference().is_zero(), "{:?}", second.difference());
        let of = |snapshot: &Snapshot| {
            [Counter::Accepted, Counter::Received, Counter::EndDrain, Counter::Open]
                .map(|counter| snapshot.count(counter))
        };
        assert_eq!(of(&second), [5, 10, 1, 1]);
        let mut third = snapshot(&[]);
        Past::of(second).add_to(&mut third);
        assert_eq!((of(&third), third.difference().is_zero()), ([5, 10, 2, 0], true));
    }
}
