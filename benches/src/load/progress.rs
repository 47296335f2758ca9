//! A bar on the terminal while a load runs.
//!
//! Before: how long it will last. After: a line that goes with its end. Never: writes to a file, or with --quiet.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::options::Options;

/// Redrawn so often a second: a load generator has other things to do.
const REDRAWS: u8 = 4;

/// The bar, its length in queries or in milliseconds.
pub struct Progress {
    bar: ProgressBar,
    is_timed: bool,
}

impl Progress {
    /// Begins.
    #[must_use]
    pub fn begin(options: &Options) -> Self {
        let length = options.queries.or_else(|| options.duration().map(milliseconds)).unwrap_or_default();
        let target = if options.quiet || options.json {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr_with_hz(REDRAWS)
        };
        let bar = ProgressBar::with_draw_target(Some(length), target);
        // A constant: it is a template on every machine or on none, and then the bar has its own style.
        if let Ok(style) = ProgressStyle::with_template("{wide_bar} {percent:>3} %  {msg}") {
            bar.set_style(style);
        }
        Self { bar, is_timed: options.queries.is_none() }
    }

    /// Shows where we are.
    pub fn show(&self, answered: u64, elapsed: Duration) {
        self.bar.set_position(if self.is_timed { milliseconds(elapsed) } else { answered });
        let rate = answered as f64 / elapsed.as_secs_f64().max(f64::MIN_POSITIVE);
        self.bar.set_message(format!("{answered} answered, {rate:.0}/s"));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
