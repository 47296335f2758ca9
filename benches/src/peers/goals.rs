//! The project's promises about its cost compared with others, and whether this run meets them.
//!
//! Before: a report. After: a row for each promise: dotd's figure, the reference, the ratio, met or not.
//! Holds: the one table of promises. Never: judges a latency at a rate that was not reached.

use super::{
    catalog::Kind,
    record::{Pick, Report},
    summary::{ratio, short},
    text::none,
    workloads::{WORK, Work},
};

/// Below this part of the offered rate a latency belongs to another load.
const REACHED: f64 = 0.95;

/// The judged figure.
#[derive(Clone, Copy)]
enum Figure {
    /// Of this work, smaller is better.
    Work(&'static str, Pick),
    /// System calls a query of this work.
    Calls(&'static str),
    /// KiB for each idle connection.
    Idle,
}

/// The reference.
#[derive(Clone, Copy)]
enum Measure {
    /// The best peer of the promise's kind.
    BestPeer,
    /// One peer.
    Peer(&'static str),
    /// The floor of the same transport.
    Floor,
    /// A number.
    Number,
}

/// One promise: `ours` is at most `limit` times its measure.
struct Goal {
    about: &'static str,
    figure: Figure,
    ours: &'static [&'static str],
    peers: Kind,
    measure: Measure,
    limit: f64,
}

/// The result for a promise.
pub(crate) struct Judged {
    pub(crate) about: &'static str,
    /// The dotd entry, and its figure.
    pub(crate) ours: Option<(&'static str, f64)>,
    /// The reference, and its figure.
    pub(crate) against: Option<(&'static str, f64)>,
    /// The ratio of both; dotd's figure itself if the promise is a number.
    pub(crate) ratio: Option<f64>,
    pub(crate) limit: f64,
    /// `None` without figures.
    pub(crate) is_met: Option<bool>,
}

const fn cpu(work: &'static str) -> Figure {
    Figure::Work(work, |figures| figures.cpu_us)
}

const P99: Figure = Figure::Work("open", |figures| figures.p99_us);
const EITHER: &[&str] = &["dotd", "dotd-tcp"];
const CACHED: &[&str] = &["dotd-cache"];

const fn goal(about: &'static str, figure: Figure, measure: Measure, limit: f64) -> Goal {
    Goal { about, figure, ours: EITHER, peers: Kind::Relay, measure, limit }
}

const fn cached(about: &'static str, figure: Figure, measure: Measure, limit: f64) -> Goal {
    Goal { about, figure, ours: CACHED, peers: Kind::Answers, measure, limit }
}

const TCP: &[&str] = &["dotd-tcp"];
const UDP: &[&str] = &["dotd"];

const GOALS: &[Goal] = &[
    goal("100 × 1, CPU µs", cpu("w100x1"), Measure::BestPeer, 0.6),
    goal("1000 × 1, CPU µs", cpu("w1000x1"), Measure::BestPeer, 0.55),
    goal("100 × 10, CPU µs", cpu("w100x10"), Measure::BestPeer, 0.6),
    goal("10 × 100, CPU µs", cpu("w10x100"), Measure::BestPeer, 0.7),
    goal("10 × 100, CPU µs", cpu("w10x100"), Measure::Peer("dnsdist"), 0.25),
    Goal {
        ours: TCP, ..goal("10 × 100, coalescing backend, CPU µs", cpu("c10x100"), Measure::Number, 1.3)
    },
    Goal {
        ours: TCP,
        ..goal("10 × 100, coalescing backend, CPU µs", cpu("c10x100"), Measure::Peer("dnsdist"), 0.12)
    },
    cached("100 × 1 cached, CPU µs", cpu("w100x1"), Measure::BestPeer, 0.7),
    cached("10 × 100 cached, CPU µs", cpu("w10x100"), Measure::BestPeer, 0.2),
    goal("full handshake and a query, CPU µs", cpu("hsfull"), Measure::Floor, 1.05),
    goal("resumed handshake and a query, CPU µs", cpu("hsres"), Measure::Floor, 1.05),
    goal("p99 at the offered rate, µs", P99, Measure::BestPeer, 1.0),
    goal("p99 at the offered rate, µs", P99, Measure::Floor, 1.2),
    cached("p99 at the offered rate, cached, µs", P99, Measure::BestPeer, 1.0),
    cached("p99 at the offered rate, cached, µs", P99, Measure::Floor, 1.2),
    goal("own memory of an idle connection, KiB", Figure::Idle, Measure::Number, 3.0),
    // A datagram may cost a call of its own where the kernel cannot take many at once.
    Goal {
        ours: UDP,
        ..goal("10 × 100 over UDP, system calls", Figure::Calls("w10x100"), Measure::Number, 1.2)
    },
    Goal {
        ours: TCP,
        ..goal(
            "10 × 100 over TCP, coalescing backend, system calls",
            Figure::Calls("c10x100"),
            Measure::Number,
            0.2,
        )
    },
];

/// Every promise for which this run has a figure of dotd.
pub(crate) fn judge(report: &Report) -> Vec<Judged> {
    let judged = GOALS.iter().map(|goal| judge_one(report, goal));
    judged.filter(|judged| judged.ours.is_some()).collect()
}

/// As rows of a table.
pub(crate) fn rows(report: &Report) -> Vec<Vec<String>> {
    let head = ["work", "ours", "figure", "held against", "its figure", "ratio", "goal", ""];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for judged in judge(report) {
        let named = |side: Option<(&str, f64)>| {
            side.map_or_else(|| [none(), none()], |(name, figure)| [name.to_owned(), short(figure)])
        };
        let mut row = vec![judged.about.to_owned()];
        row.extend(named(judged.ours));
        row.extend(named(judged.against));
        row.push(judged.ratio.map_or_else(none, short));
        row.push(format!("≤ {}", judged.limit));
        row.push(
            match judged.is_met {
                Some(true) => "met",
                Some(false) => "not met",
                None => "not judged",
            }
            .to_owned(),
        );
        rows.push(row);
    }
    rows
}

fn judge_one(report: &Report, goal: &Goal) -> Judged {
    let of = |name: &'static str| figure(report, goal.figure, name).map(|figure| (name, figure));
    let least = |names: &mut dyn Iterator<Item = &'static str>| {
        names.filter_map(of).min_by(|one, other| one.1.total_cmp(&other.1))
    };
    let ours = least(&mut goal.ours.iter().copied());
    let against = match goal.measure {
        Measure::BestPeer => {
            let peers = report.peers.iter().map(|peer| peer.entry);
            least(&mut peers.filter(|entry| entry.kind == goal.peers).map(|entry| entry.name))
        }
        Measure::Peer(name) => of(name),
        Measure::Floor => ours.and_then(|(name, _)| of(floor_of(report, name))),
        Measure::Number => None,
    };
    let ratio = match goal.measure {
        Measure::Number => ours.map(|(_, figure)| figure),
        _ => ours.and_then(|(_, figure)| ratio(figure, against.map(|(_, figure)| figure))),
    };
    let is_fair = ours.is_some_and(|(name, _)| has_reached(report, goal.figure, name));
    let is_met = ratio.filter(|_| is_fair).map(|ratio| ratio <= goal.limit);
    Judged { about: goal.about, ours, against, ratio, limit: goal.limit, is_met }
}

/// The floor that does the same work as this dotd entry.
fn floor_of(report: &Report, ours: &str) -> &'static str {
    let entry = report.peers.iter().map(|peer| peer.entry).find(|entry| entry.name == ours);
    match entry {
        Some(entry) if entry.kind == Kind::OursCached => "floor-echo",
        Some(entry) if entry.transport == "tcp" => "floor-relay-tcp",
        _ => "floor-relay",
    }
}

fn work(name: &str) -> Option<&'static Work> {
    WORK.iter().find(|work| work.name == name)
}

fn figure(report: &Report, figure: Figure, peer: &str) -> Option<f64> {
    match figure {
        Figure::Work(name, pick) => report.spread(peer, work(name)?, pick).map(|spread| spread.median),
        Figure::Calls(name) => report.calls(peer, work(name)?),
        Figure::Idle => report.idle.iter().find(|idle| idle.peer == peer).map(|idle| idle.pss_kib),
    }
}

fn has_reached(report: &Report, figure: Figure, peer: &str) -> bool {
    let Figure::Work(name, _) = figure else { return true };
    let reached = work(name).and_then(|work| report.spread(peer, work, |figures| figures.reached));
    reached.is_some_and(|reached| reached.median >= REACHED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::record;

    /// Goal: a promise is held against the right one, and judged by the ratio. Method: known costs: nginx 10, dotd 6,
    /// the cache that is no relay 5: 0.6 of the best relay is met; dearer is not.
    #[test]
    fn judges_by_the_best_relay() {
        let mut report = record::tests::report();
        let find = |report: &Report| {
            judge(report).into_iter().find(|judged| judged.about == "100 × 1, CPU µs").expect("a promise")
        };
        let judged = find(&report);
        assert_eq!(judged.ours, Some(("dotd", 6.0)));
        assert_eq!((judged.against, judged.ratio), (Some(("nginx", 10.0)), Some(0.6)));
        assert_eq!(judged.is_met, Some(true));
        for run in report.runs.iter_mut().filter(|run| run.peer == "dotd") {
            run.figures.as_mut().expect("measured").cpu_us = 6.1;
        }
        assert_eq!(find(&report).is_met, Some(false));
    }

    /// Goal: what was not reached is not judged. Method: the same run at half the rate.
    #[test]
    fn judges_no_rate_that_was_not_reached() {
        let mut report = record::tests::report();
        for run in &mut report.runs {
            run.figures.as_mut().expect("measured").reached = 0.5;
        }
        assert!(judge(&report).iter().all(|judged| judged.is_met.is_none() || judged.about.contains("KiB")));
        assert!(rows(&report).iter().any(|row| row.last().is_some_and(|cell| cell == "not judged")));
    }

    /// Goal: every promise names work and peers that there are. Method: the tables themselves.
    #[test]
    fn names_what_there_is() {
        use crate::peers::catalog::CATALOG;
        let has = |name: &str| CATALOG.iter().any(|entry| entry.name == name);
        for goal in GOALS {
            assert!(goal.ours.iter().all(|name| has(name)), "{}", goal.about);
            if let Figure::Work(name, _) | Figure::Calls(name) = goal.figure {
                let work = work(name).expect(goal.about);
                assert!(!matches!(goal.figure, Figure::Calls(_)) || work.counts_calls, "{}", goal.about);
            }
            if let Measure::Peer(name) = goal.measure {
                assert!(has(name), "{}", goal.about);
            }
        }
    }
}
