//! The options of verbs that watch a running dotd.
//!
//! Before: the shell's words. After: `top` and `trace` know what to show. Never: does anything but describe.

use std::time::Duration;

use clap::Args;

use super::{
    arguments::ControlArguments,
    top::{self, Order},
    trace,
};
use crate::{config::parse_duration, control::TraceRequest};

/// The options of `dotd top`.
#[derive(Debug, Args)]
pub(super) struct TopArguments {
    /// Take two samples, print the difference, and end
    #[arg(long)]
    once: bool,
    /// Show also the names that are asked for most: the terminal then shows what clients ask for
    #[arg(long)]
    names: bool,
    /// Quantity that clients are sorted by
    #[arg(long, value_enum, value_name = "WHAT", default_value = "queries")]
    sort: Order,
    /// Show only clients of this prefix, with this address, or with this text in their prefix
    #[arg(long, value_name = "TEXT", default_value = "")]
    filter: String,
    /// Time between two samples
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = interval)]
    interval: Duration,
    #[command(flatten)]
    pub(super) control: ControlArguments,
}

impl TopArguments {
    /// The parsed options.
    pub(super) fn wish(&self) -> top::Wish {
        top::Wish {
            once: self.once,
            json: self.control.json,
            with_names: self.names,
            order: self.sort,
            filter: self.filter.clone(),
            interval: self.interval,
        }
    }
}

/// The options of `dotd trace`.
#[derive(Debug, Args)]
pub(super) struct TraceArguments {
    /// An address, a prefix, or a session as `dotd explain` names it, such as 0.17
    #[arg(value_name = "CLIENT|SESSION")]
    subject: String,
    /// Show the names that are asked for
    #[arg(long)]
    names: bool,
    /// Follow one connection in this many
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    sample: u32,
    /// End after this many events
    #[arg(long, value_name = "EVENTS")]
    count: Option<u64>,
    /// End after this time
    #[arg(long = "for", value_name = "TIME", value_parser = parse_duration)]
    length: Option<Duration>,
    #[command(flatten)]
    control: ControlArguments,
}

impl TraceArguments {
    /// The parsed options, and the socket.
    pub(super) fn wish(self) -> (trace::Wish, ControlArguments) {
        let Self { subject, names, sample, count, length, control } = self;
        (trace::Wish { request: TraceRequest { subject, sample, names }, count, length }, control)
    }
}

/// The interval is at least 100 ms and at most as long as workers continue to count.
fn interval(text: &str) -> Result<Duration, String> {
    let interval = parse_duration(text)?;
    let range = Duration::from_millis(100)..=Duration::from_secs(10);
    if range.contains(&interval) { Ok(interval) } else { Err("an interval is 100 ms to 10 s".to_owned()) }
}
