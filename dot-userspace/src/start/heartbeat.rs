//! Checks that every worker still responds, and reports it to systemd's watchdog.
//!
//! Before: the control thread checks every second. After: every worker has answered, and systemd gets the report with
//! a line for `systemctl status`; or a worker is stuck, and the engine ends, so that the keeper starts another one.
//! Never: counts a pause of the whole machine as a stuck worker: it counts only seconds in which this thread ran.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use nix::unistd::{Pid, getpid, getppid};

use super::{
    logging,
    process::{Process, Running},
};
use crate::{
    control::{Source as _, Status},
    worker::Worker,
};

/// A worker that does not answer this number of checks is stuck: a turn of a worker takes much less than a second.
const LOOKS_MAX: u64 = 15;
/// A check that follows the previous one sooner than this does not count: after a pause, the timer of an interval
/// fires several times at once.
const LOOK_LEAST: Duration = Duration::from_millis(500);
/// systemd gets a report at every fifth check.
const TOLD_EVERY: u64 = 5;

/// What each worker has answered.
pub(super) struct Heartbeat {
    answered: Vec<Arc<AtomicU64>>,
    looks: u64,
    last: Option<Instant>,
}

/// The result of a check.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Beat {
    /// Every worker answers.
    Well,
    /// Every worker answers, and a report to systemd is due.
    Tell,
    /// The first worker that does not answer.
    Stuck(usize),
}

impl Heartbeat {
    pub(super) fn of(workers: usize) -> Self {
        Self { answered: (0..workers).map(|_| Arc::default()).collect(), looks: 0, last: None }
    }

    /// Asks every worker again.
    pub(super) fn look(&mut self, workers: &[Worker], now: Instant) -> Beat {
        let beat = self.count(now);
        if beat.is_some() {
            let looks = self.looks;
            for (worker, answered) in workers.iter().zip(&self.answered) {
                let answered = Arc::clone(answered);
                worker.line().look(Box::new(move |_| answered.store(looks, Relaxed)));
            }
        }
        beat.unwrap_or(Beat::Well)
    }

    /// The result of this check; `None`: it does not count, because the previous check was just before it.
    fn count(&mut self, now: Instant) -> Option<Beat> {
        if self.last.is_some_and(|last| now.saturating_duration_since(last) < LOOK_LEAST) {
            return None;
        }
        (self.last, self.looks) = (Some(now), self.looks + 1);
        let is_late = |answered: &Arc<AtomicU64>| answered.load(Relaxed) + LOOKS_MAX < self.looks;
        if let Some(stuck) = self.answered.iter().position(is_late) {
            return Some(Beat::Stuck(stuck));
        }
        Some(if self.looks % TOLD_EVERY == 1 { Beat::Tell } else { Beat::Well })
    }
}

/// Checks that every worker responds. If one does not, the engine ends as in a crash, and its keeper starts another
/// one.
pub(super) fn feel(process: &Process, running: &Running, heartbeat: &mut Heartbeat) {
    if has_lost(running.keeper.pid()) {
        tracing::error!("dotd's keeper process has ended, and this process ends with it");
        logging::flush();
        std::process::abort();
    }
    match heartbeat.look(&running.workers, Instant::now()) {
        Beat::Well => {}
        Beat::Tell => {
            let total = running.admission.total();
            running.keeper.alive(in_a_line(&process.status(), total));
        }
        Beat::Stuck(worker) => {
            tracing::error!(worker, "a worker does not answer; this process ends, and a new one starts");
            logging::flush();
            std::process::abort();
        }
    }
}

/// Whether the keeper has ended. As a rule the kernel kills this process then; it does not if the keeper ended, or was killed, while
/// it acted as root.
fn has_lost(keeper: Pid) -> bool {
    // An engine without a keeper has its own pid there.
    keeper != getpid() && keeper != getppid()
}

/// A line for `systemctl status`.
fn in_a_line(status: &Status, connections: u32) -> String {
    let up = status.backends.iter().filter(|backend| backend.state != "down").count();
    let backends = status.backends.len();
    let mut line =
        format!("{connections} connections, {up} of {backends} backends, XDP {}", status.xdp.state);
    let doubts = [
        (status.off.is_some(), "DNS over TLS is switched off"),
        (status.drain.is_some(), "drained"),
        (status.xdp.degraded.is_some(), "XDP is degraded"),
        (!status.unusable_certificates.is_empty(), "a certificate is unusable"),
    ];
    for (_, doubt) in doubts.iter().filter(|(is_so, _)| *is_so) {
        line += "; ";
        line += doubt;
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: an engine that has lost its keeper ends, and one without a keeper does not. Method: the pids of this process, of its parent,
    /// and of another one.
    #[test]
    fn a_lost_keeper_is_found() {
        assert!(!has_lost(getpid()) && !has_lost(getppid()));
        assert!(has_lost(Pid::from_raw(i32::MAX)));
    }

    /// Goal: a worker that does not answer is found after the limit, and a pause of this thread does not count.
    /// Method: checks one second apart, which one worker never answers; then a burst of checks after an hour. Covers:
    ///
    #[test]
    fn a_worker_that_does_not_answer_is_found() {
        let (mut heartbeat, begin) = (Heartbeat::of(2), Instant::now());
        let at = |second| begin + Duration::from_secs(second);
        let answer = |heartbeat: &Heartbeat, worker: usize| {
            heartbeat.answered[worker].store(heartbeat.looks, Relaxed);
        };
        assert_eq!(heartbeat.count(at(0)), Some(Beat::Tell));
        for second in 1..=LOOKS_MAX - 1 {
            answer(&heartbeat, 0);
            let beat = heartbeat.count(at(second)).unwrap();
            assert_eq!(beat == Beat::Tell, second % TOLD_EVERY == 0, "{second}");
        }
        assert_eq!(heartbeat.count(at(LOOKS_MAX)), Some(Beat::Stuck(1)));
        let mut heartbeat = Heartbeat::of(1);
        assert!(heartbeat.count(at(0)).is_some());
        answer(&heartbeat, 0);
        assert!(heartbeat.count(at(3600)).is_some());
        for _ in 0..3600 {
            assert_eq!(heartbeat.count(at(3600)), None, "a burst is one look");
        }
    }
}
