//! How timeouts shrink as connections near their cap. Pure.
//!
//! Before: `worker` counts the connections. After: `WorkerShared` has the current idle timeout.
//! Never: shortens anything below three quarters of the cap.
//!
//! Source: RFC 7766 §6.2.3, RFC 7828 §3.3.2.

use std::time::Duration;

/// The shortest idle timeout is this part of the configured one: 3 s of 30 s, "a few seconds" in RFC 7766.
const FLOOR_PART: u32 = 10;

/// The number of connections of the process, and its cap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fill {
    /// Connections open.
    pub open: u32,
    /// The cap; 0: unknown.
    pub max: u32,
}

impl Fill {
    /// Whether every place is taken: the next connection gets the place of the one that has been idle longest.
    #[must_use]
    pub fn is_full(self) -> bool {
        self.max > 0 && self.open >= self.max
    }

    /// Whether timeouts are shorter than configured.
    #[must_use]
    pub fn is_pressed(self) -> bool {
        u64::from(self.open) * 4 > u64::from(self.max) * 3
    }

    /// `timeout` up to three quarters of the cap; from there it falls linearly to a tenth of it at the cap.
    #[must_use]
    pub fn shrunk(self, timeout: Duration) -> Duration {
        // Counted in quarters of a connection, so that three quarters of any cap are exact.
        let (open, max) = (u64::from(self.open) * 4, u64::from(self.max));
        let Some(over) = open.checked_sub(max * 3).filter(|over| *over > 0) else { return timeout };
        let floor = timeout / FLOOR_PART;
        let over = u32::try_from(over.min(max)).unwrap_or(u32::MAX);
        timeout - (timeout - floor) / self.max.max(1) * over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(30);

    /// Covers: C-27.
    #[test]
    fn shrinks_in_a_straight_line_from_three_quarters() {
        let at = |open, max| Fill { open, max }.shrunk(IDLE);
        assert_eq!((at(0, 0), at(0, 100), at(75, 100), at(1, 2)), (IDLE, IDLE, IDLE, IDLE));
        assert_eq!(at(100, 100), Duration::from_secs(3));
        assert_eq!(at(200, 100), Duration::from_secs(3), "a cap that a reload lowered");
        assert_eq!(at(7, 8), Duration::from_millis(16_500), "half of the way");
        let line: Vec<_> = (0..=100_000).step_by(500).map(|open| at(open, 100_000)).collect();
        assert!(line.is_sorted_by(|before, after| before >= after), "more connections, less time");
        let largest = Fill { open: u32::MAX, max: u32::MAX }.shrunk(Duration::from_secs(3600));
        assert!(largest >= Duration::from_secs(360) && largest < Duration::from_secs(365), "{largest:?}");
    }

    #[test]
    fn a_cap_that_nobody_said_is_never_full() {
        assert!(!Fill::default().is_full());
        assert!(Fill { open: 2, max: 2 }.is_full() && !Fill { open: 1, max: 2 }.is_full());
    }
}
