//! Whether an operator has withdrawn readiness, and until when.
//!
//! Before: `dotd drain`. After: status and probes report it until its end.
//! Never: needs a timer: the time is checked when status or a probe asks.

use std::time::{Duration, Instant};

use super::{Process, lock};
use crate::control::{DrainRequest, DrainStatus};

/// The longest drain: a week.
const SECONDS_MAX: u64 = 7 * 86_400;

/// The drain of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Drained {
    #[default]
    No,
    Always,
    Until(Instant),
}

impl Process {
    /// The present drain.
    pub(super) fn drain_status(&self) -> Option<DrainStatus> {
        let drained = *lock(&self.drained);
        status(drained, Instant::now())
    }

    /// Withdraws readiness, or restores it.
    pub(super) fn drain_by(&self, request: DrainRequest) -> Result<DrainRequest, String> {
        let drained = drained(request, Instant::now())?;
        *lock(&self.drained) = drained;
        let said = if request.is_on { "drained: load balancers get 503" } else { "ready for clients again" };
        tracing::info!(seconds = request.seconds, "{said}");
        Ok(request)
    }
}

fn drained(request: DrainRequest, now: Instant) -> Result<Drained, String> {
    match (request.is_on, request.seconds) {
        (false, _) => Ok(Drained::No),
        (true, None) => Ok(Drained::Always),
        (true, Some(seconds @ 1..=SECONDS_MAX)) => Ok(Drained::Until(now + Duration::from_secs(seconds))),
        (true, Some(seconds)) => Err(format!("a drain of {seconds} s is not possible: use 1 s to 7 days")),
    }
}

fn status(drained: Drained, now: Instant) -> Option<DrainStatus> {
    match drained {
        Drained::No => None,
        Drained::Always => Some(DrainStatus { seconds_left: None }),
        Drained::Until(end) => {
            let left = end.checked_duration_since(now).filter(|left| !left.is_zero())?;
            Some(DrainStatus { seconds_left: Some(left.as_secs() + u64::from(left.subsec_nanos() > 0)) })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a drain with a duration ends, one without does not, and none is too long. Method: times given by the
    /// test.
    #[test]
    fn a_drain_ends_by_itself() {
        let now = Instant::now();
        let request = |seconds| DrainRequest { is_on: true, seconds };
        let later = |seconds| now + Duration::from_secs(seconds);
        let short = drained(request(Some(30)), now).unwrap();
        assert_eq!(status(short, later(29)), Some(DrainStatus { seconds_left: Some(1) }));
        assert_eq!(status(short, later(30)), None);
        let long = drained(request(None), now).unwrap();
        assert_eq!(status(long, later(SECONDS_MAX)), Some(DrainStatus { seconds_left: None }));
        assert!(
            drained(request(Some(0)), now).is_err() && drained(request(Some(SECONDS_MAX + 1)), now).is_err()
        );
        assert_eq!(drained(DrainRequest { is_on: false, seconds: None }, now), Ok(Drained::No));
    }
}
