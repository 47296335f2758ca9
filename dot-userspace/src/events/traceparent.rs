//! The trace and the span of a query whose client is traced for an OpenTelemetry collector, so that the backend can continue them.
//!
//! Before: a query was read, and a trace wants backends to know its span. After: the query's OPT has an option with both numbers.
//! Holds: the span of the query that this thread handles now. Never: costs more than a branch while there is no trace.
//!
//! Source: draft-edns-otel-trace-ids-00 §3 (version 0: trace ID of 16 octets, span ID of 8).

use std::{
    cell::Cell,
    hash::{BuildHasher as _, RandomState},
};

use super::is_tracing;

/// The numbers of a span. Neither is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanIds {
    /// The trace that it belongs to.
    pub trace: u128,
    /// Its own.
    pub span: u64,
}

/// Octets of the option: code and length, version and a reserved octet, both numbers.
pub const OPTION_OCTETS: usize = 30;
const CONTENT_OCTETS: u16 = 26;

thread_local! {
    /// Cannot be guessed, so that numbers of several processes differ.
    static RANDOM: RandomState = RandomState::new();
    static DRAWN: Cell<u64> = const { Cell::new(0) };
    /// The option of the query that is handled now.
    static CURRENT: Cell<Option<[u8; OPTION_OCTETS]>> = const { Cell::new(None) };
}

impl SpanIds {
    /// New numbers.
    #[must_use]
    pub fn draw() -> Self {
        let number = || {
            let drawn = DRAWN.get();
            DRAWN.set(drawn.wrapping_add(1));
            RANDOM.with(|random| random.hash_one(drawn)).max(1)
        };
        let (high, low) = (number(), number());
        Self { trace: u128::from(high) << 64 | u128::from(low), span: number() }
    }

    /// The option with this code.
    fn option(self, code: u16) -> [u8; OPTION_OCTETS] {
        let [code, length] = [code, CONTENT_OCTETS].map(u16::to_be_bytes);
        let (trace, span) = (self.trace.to_be_bytes(), self.span.to_be_bytes());
        let mut option = [0; OPTION_OCTETS];
        let octets = code.iter().chain(&length).chain(&[0, 0]).chain(&trace).chain(&span);
        option.iter_mut().zip(octets).for_each(|(place, octet)| *place = *octet);
        option
    }
}

/// The query that is handled now has this span; its backend gets it in an option with this code.
pub(super) fn begin(code: u16) -> SpanIds {
    let ids = SpanIds::draw();
    CURRENT.set(Some(ids.option(code)));
    ids
}

/// The query has ended, or is on its way to a backend.
#[inline]
pub fn query_is_over() {
    if is_tracing() {
        CURRENT.set(None);
    }
}

/// The option for the query that is handled now.
#[inline]
#[must_use]
pub fn option() -> Option<[u8; OPTION_OCTETS]> {
    if is_tracing() { CURRENT.get() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the option is that of the draft, and spans differ. Method: its octets; a thousand draws. Covers: C-703
    #[test]
    fn an_option_has_both_numbers() {
        let ids = SpanIds { trace: 0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10, span: 0x1112_1314_1516_1718 };
        let mut expected = vec![0xff, 0xdc, 0, 26, 0, 0];
        expected.extend(1..=24u8);
        assert_eq!(ids.option(65_500).to_vec(), expected);
        let drawn: std::collections::BTreeSet<_> = (0..1000).map(|_| SpanIds::draw().trace).collect();
        assert_eq!(drawn.len(), 1000);
        assert_eq!(option(), None, "no trace runs");
    }
}
