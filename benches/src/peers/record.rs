//! Everything a comparison found, what it is asked for by the tables, and its form for programs.
//!
//! Before: idle weights and runs. After: `text`, `markdown` and peers.json. Never: rounds in JSON.

use serde_json::{Value, json};

use super::{
    catalog::{Backend, Entry, Kind},
    goals,
    idle::Idle,
    machine::Machine,
    options::Pace,
    rounds::{Counted, Figures, Run},
    stage::LeftOut,
    summary::{Spread, best, ratio},
    workloads::{WORK, Work},
};

/// A figure of a run.
pub(crate) type Pick = fn(&Figures) -> f64;

/// The floor that relays are set in relation to.
pub(crate) const FLOOR: &str = "floor-relay";

/// The floor of one kind of work.
pub(crate) fn floor_of(work: &Work) -> &'static str {
    match work.backend {
        Backend::Nsd => FLOOR,
        Backend::Coalescing => "floor-relay-tcp",
    }
}

/// A peer, as the report names it.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) entry: &'static Entry,
    pub(crate) version: String,
}

/// All of it.
pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) pace: Pace,
    pub(crate) peers: Vec<Told>,
    pub(crate) left_out: LeftOut,
    pub(crate) idle: Vec<Idle>,
    pub(crate) runs: Vec<Run>,
    pub(crate) calls: Vec<Counted>,
}

impl Report {
    /// The work that was done, in the table's order.
    pub(crate) fn works(&self) -> impl Iterator<Item = &'static Work> {
        WORK.iter().filter(|work| self.runs.iter().any(|run| run.work == *work))
    }

    /// A figure over all rounds.
    pub(crate) fn spread(&self, peer: &str, work: &Work, pick: Pick) -> Option<Spread> {
        let runs = self.runs.iter().filter(|run| run.peer == peer && run.work == work);
        Spread::of(runs.filter_map(|run| run.figures.as_ref().ok()).map(pick))
    }

    /// System calls a query.
    pub(crate) fn calls(&self, peer: &str, work: &Work) -> Option<f64> {
        self.calls
            .iter()
            .find(|counted| counted.peer == peer && counted.work == work)
            .map(|counted| counted.calls)
    }

    /// The median of the front end's CPU.
    pub(crate) fn cpu(&self, peer: &str, work: &Work) -> Option<f64> {
        self.spread(peer, work, |figures| figures.cpu_us).map(|spread| spread.median)
    }

    /// The best median among peers of these kinds.
    fn best_of(&self, kinds: &[Kind], work: &Work) -> Option<f64> {
        let peers = self.peers.iter().filter(|peer| kinds.contains(&peer.entry.kind));
        best(peers.filter_map(|peer| self.cpu(peer.entry.name, work)))
    }

    /// How many times the best peer's CPU; dotd and the floor are no peers.
    pub(crate) fn to_best_peer(&self, peer: &str, work: &Work) -> Option<f64> {
        ratio(self.cpu(peer, work)?, self.best_of(&[Kind::Relay, Kind::Answers], work))
    }

    /// How many times the CPU of the best that asks the backend for each query, as dotd does.
    pub(crate) fn to_best_relay(&self, peer: &str, work: &Work) -> Option<f64> {
        ratio(self.cpu(peer, work)?, self.best_of(&[Kind::Relay], work))
    }

    /// How many times the floor's CPU.
    pub(crate) fn to_floor(&self, peer: &str, work: &Work) -> Option<f64> {
        ratio(self.cpu(peer, work)?, self.cpu(floor_of(work), work))
    }

    /// The share of the front end's core that other programs took, over all runs.
    pub(crate) fn others(&self) -> Option<Spread> {
        let figures = self.runs.iter().filter_map(|run| run.figures.as_ref().ok());
        Spread::of(figures.map(|figures| figures.others_share))
    }

    /// Was every query of every run answered as expected?
    pub(crate) fn is_clean(&self) -> bool {
        self.faults().is_empty()
    }

    /// One line for each run that did not go well.
    pub(crate) fn faults(&self) -> Vec<String> {
        let fault = |run: &Run| match &run.figures {
            Ok(figures) if figures.faults == 0 => None,
            Ok(figures) => Some(format!(
                "{} {}: {} of {} queries were not answered as expected",
                run.peer,
                run.work.name,
                figures.faults,
                figures.answered + figures.faults
            )),
            Err(why) => Some(format!("{} {}: {why}", run.peer, run.work.name)),
        };
        self.runs.iter().filter_map(fault).collect()
    }

    /// Everything, each run by itself as well; times in µs.
    pub(crate) fn json(&self) -> Value {
        let peers: Vec<Value> = self.peers.iter().map(|peer| self.peer(peer)).collect();
        let left_out: Vec<Value> =
            self.left_out.iter().map(|(name, why)| json!({"name": name, "why": why})).collect();
        let machine = &self.machine;
        json!({
            "machine": {
                "cpu": machine.cpu,
                "cpus": machine.cpus,
                "memory_mib": machine.memory_mib,
                "kernel": machine.kernel,
                "system": machine.system,
                "core_of_front_end": machine.cores.front,
                "core_of_load_and_backend": machine.cores.load,
                "load_average_before": machine.load[0],
                "load_average_after": machine.load[1],
                "begun_unix_seconds": machine.begun,
                "others_share_of_front_core": self.others().map(json_of),
            },
            "offered_queries_per_second": self.pace.rate,
            "rounds": self.pace.rounds,
            "seconds_of_each_load": self.pace.duration.as_secs_f64(),
            "goals": goals::judge(self).iter().map(goal).collect::<Vec<Value>>(),
            "peers": peers,
            "left_out": left_out,
            "faults": self.faults(),
        })
    }

    fn peer(&self, peer: &Told) -> Value {
        let name = peer.entry.name;
        let work: serde_json::Map<String, Value> =
            self.works().map(|work| (work.name.to_owned(), self.work(name, work))).collect();
        let idle = self.idle.iter().find(|idle| idle.peer == name).map(|idle| {
            json!({
                "connections": idle.connections,
                "pss_kib": idle.pss_kib,
                "rss_kib": idle.rss_kib,
                "anonymous_kib": idle.anonymous_kib,
            })
        });
        json!({
            "name": name,
            "version": peer.version,
            "kind": peer.entry.kind.name(),
            "transport_to_backend": peer.entry.transport,
            "idle_connection": idle,
            "work": work,
        })
    }

    fn work(&self, peer: &str, work: &Work) -> Value {
        let mut figures = serde_json::Map::new();
        for (name, pick) in PICKS {
            figures.insert((*name).to_owned(), json!(self.spread(peer, work, *pick).map(json_of)));
        }
        figures.insert("system_calls".to_owned(), json!(self.calls(peer, work)));
        figures.insert("to_best_peer".to_owned(), json!(self.to_best_peer(peer, work)));
        figures.insert("to_best_relay".to_owned(), json!(self.to_best_relay(peer, work)));
        figures.insert("to_floor".to_owned(), json!(self.to_floor(peer, work)));
        Value::Object(figures)
    }
}

const PICKS: &[(&str, Pick)] = &[
    ("cpu_us", |figures| figures.cpu_us),
    ("user_share", |figures| figures.user_share),
    ("load_cpu_us", |figures| figures.own_cpu_us),
    ("voluntary_switches", |figures| figures.voluntary),
    ("involuntary_switches", |figures| figures.involuntary),
    ("queries_per_second", |figures| figures.queries_per_second),
    ("p50_us", |figures| figures.p50_us),
    ("p99_us", |figures| figures.p99_us),
    ("p999_us", |figures| figures.p999_us),
    ("answered", |figures| figures.answered as f64),
    ("faults", |figures| figures.faults as f64),
    ("resumed_share", |figures| figures.resumed_share),
    ("others_share_of_core", |figures| figures.others_share),
    ("reached_share_of_rate", |figures| figures.reached),
    ("load_lag_p99_us", |figures| figures.lag_p99_us),
];

fn goal(judged: &goals::Judged) -> Value {
    let side = |side: Option<(&str, f64)>| side.map(|(name, figure)| json!({"name": name, "figure": figure}));
    json!({
        "about": judged.about,
        "ours": side(judged.ours),
        "against": side(judged.against),
        "ratio": judged.ratio,
        "limit": judged.limit,
        "is_met": judged.is_met,
    })
}

fn json_of(spread: Spread) -> Value {
    json!({"median": spread.median, "min": spread.min, "max": spread.max})
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::peers::{catalog::CATALOG, machine::Cores};

    /// Three peers, two rounds of one kind of work: nginx 10, dnsdist-cache 5, dotd 6 µs, the floor 4.
    pub(crate) fn report() -> Report {
        let named = |name: &str| CATALOG.iter().find(|entry| entry.name == name).expect("in the catalogue");
        let names = ["nginx", "dnsdist-cache", "dotd", FLOOR];
        let costs = [10.0, 5.0, 6.0, 4.0];
        let peers = names.map(|name| Told { entry: named(name), version: "1.0".to_owned() }).to_vec();
        let run = |(name, cpu_us): (&'static str, f64)| Run {
            peer: name,
            work: &WORK[0],
            figures: Ok(Figures { cpu_us, answered: 100, reached: 1.0, ..Figures::default() }),
        };
        let runs = (0..2).flat_map(|_| names.into_iter().zip(costs).map(run)).collect();
        let idle =
            vec![Idle { peer: "dotd", connections: 1000, pss_kib: 12.0, rss_kib: 12.5, anonymous_kib: 11.0 }];
        Report {
            machine: Machine::look(Cores { front: 0, load: 1 }),
            pace: Pace { rounds: 2, duration: Duration::from_secs(1), idle: 1000, rate: 20_000 },
            peers,
            left_out: vec![("named", "named is not installed".to_owned())],
            idle,
            runs,
            calls: vec![Counted { peer: "dotd", work: &WORK[0], calls: 1.5 }],
        }
    }

    /// Goal: each ratio is to the right one: dotd and the floor are no peers, a cache is no relay.
    /// Method: four known costs.
    #[test]
    fn sets_in_relation() {
        let report = report();
        assert_eq!(report.to_best_peer("dotd", &WORK[0]), Some(1.2));
        assert_eq!(report.to_best_relay("dotd", &WORK[0]), Some(0.6));
        assert_eq!(report.to_floor("dotd", &WORK[0]), Some(1.5));
        assert_eq!(report.to_floor("dotd", &WORK[1]), None);
        assert_eq!(report.json()["peers"][2]["work"]["w100x1"]["cpu_us"]["median"], 6.0);
    }

    /// Goal: a fault is never lost in a median. Method: one run with a wrong answer, one that failed.
    #[test]
    fn tells_faults() {
        let mut report = report();
        assert!(report.is_clean());
        report.runs[0].figures = Ok(Figures { answered: 9, faults: 1, ..Figures::default() });
        report.runs[1].figures = Err("refused".to_owned());
        let faults = report.faults();
        assert_eq!(faults[0], "nginx w100x1: 1 of 10 queries were not answered as expected");
        assert_eq!(faults[1..], ["dnsdist-cache w100x1: refused"]);
    }
}
