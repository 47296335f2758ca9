//! Packets of clients that an operator traces: which ones, and what the kernel half tells of each.
//!
//! Before: an operator traces clients, and the loader has written [`Traced`]. After: `dotd trace` shows each packet of theirs
//! that begins something or is refused, with its verdict.
//! Holds: the traced prefixes, the shape of an event, and the pace of events.
//! Never: reads a clock, or writes: the kernel half does.

use crate::{
    flow::FlowKey,
    rate::Rate,
    verdict::{Action, Reason, Verdict},
};

/// Prefixes that are traced at the same time.
pub const TRACED_MAX: usize = 8;

/// The value of the map TRACED.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traced {
    /// The prefixes; unused places are of version 0.
    pub clients: [TracedPrefix; TRACED_MAX],
}

/// One prefix. 40 octets, no padding.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TracedPrefix {
    /// The address, as in [`FlowKey::client`].
    address: [u64; 2],
    /// The bits that count.
    mask: [u64; 2],
    /// 4 or 6; 0: none.
    version: u32,
    /// Always zero.
    reserved: u32,
}

const _: () = assert!(size_of::<Traced>() == 320);

impl TracedPrefix {
    /// The first `bits` of an address, whose octets are in the order of the wire; IPv4 has the first four.
    #[must_use]
    pub fn new(octets: [u8; 16], bits: u32, is_v6: bool) -> Self {
        let mask = u128::MAX.checked_shl(128 - bits.min(128)).unwrap_or(0).to_be_bytes();
        let words = |octets: [u8; 16]| {
            let all = u128::from_ne_bytes(octets);
            let halves = [all as u64, (all >> 64) as u64];
            if cfg!(target_endian = "little") { halves } else { [halves[1], halves[0]] }
        };
        Self { address: words(octets), mask: words(mask), version: if is_v6 { 6 } else { 4 }, reserved: 0 }
    }

    #[inline(always)]
    const fn has(&self, flow: &FlowKey) -> bool {
        let ([a, b], [c, d], [e, f]) = (flow.client, self.address, self.mask);
        flow.version == self.version && ((a ^ c) & e) | ((b ^ d) & f) == 0
    }
}

impl Traced {
    /// Whether a connection's client is traced.
    #[must_use]
    #[inline(always)]
    pub const fn has(&self, flow: &FlowKey) -> bool {
        let [a, b, c, d, e, f, g, h] = &self.clients;
        let first = a.has(flow) || b.has(flow) || c.has(flow) || d.has(flow);
        first || e.has(flow) || f.has(flow) || g.has(flow) || h.has(flow)
    }
}

/// One packet. 64 octets, no padding.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Monotonic time of the verdict.
    pub at_ns: u64,
    /// The schedule of the client's rate for such packets after this one, as [`Rate::admit`] has it; 0: it has none.
    pub scheduled_ns: u64,
    /// Client, server and their ports.
    pub flow: FlowKey,
    /// The number of a [`Reason`].
    pub reason: u32,
    /// The number of an [`Action`].
    pub action: u32,
}

const _: () = assert!(size_of::<Seen>() == 64);

impl Seen {
    /// The verdict, unless a number is unknown.
    #[must_use]
    pub fn verdict(&self) -> Option<Verdict> {
        Verdict::numbered(self.reason, self.action)
    }
}

/// Whether a packet with this verdict is told: it begins a connection, or is refused, or would be. What an open connection
/// does, and queries by UDP that pass, the engine tells.
#[must_use]
#[inline(always)]
pub const fn is_told(verdict: Verdict) -> bool {
    !matches!(verdict.action, Action::Pass)
        || matches!(
            verdict.reason,
            Reason::Syn | Reason::Allowed | Reason::Own | Reason::Proven | Reason::Unproven
        )
}

/// How often packets are told, over all traces: a thousand at once, then a thousand a second.
pub const PACE: Rate = Rate::new(1000, 1000);

/// Octets of the ring: a power of two and whole pages. Room for what [`PACE`] allows at once, and half as much again.
pub const RING_OCTETS: u32 = 131_072;

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(octets: [u8; 4]) -> [u8; 16] {
        let mut all = [0; 16];
        all[..4].copy_from_slice(&octets);
        all
    }

    /// Goal: a prefix has its own addresses, of its own version, and no other. Method: prefixes of several lengths, addresses at
    /// their ends. Covers: C-701
    #[test]
    fn a_prefix_has_its_addresses() {
        let flow = |words: [u32; 4], is_v6| FlowKey::new(words, 1000, [0; 4], 853, is_v6);
        let mut traced = Traced::default();
        traced.clients[0] = TracedPrefix::new(v4([192, 0, 2, 0]), 25, false);
        traced.clients[7] =
            TracedPrefix::new([0x20, 1, 0xd, 0xb8, 0, 1, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0], 49, true);
        let has = |words, is_v6| traced.has(&flow(words, is_v6));
        assert!(has([0xc000_0200, 0, 0, 0], false) && has([0xc000_027f, 0, 0, 0], false));
        assert!(!has([0xc000_0280, 0, 0, 0], false) && !has([0, 0, 0, 0], false));
        assert!(has([0x2001_0db8, 0x0001_8000, 7, 9], true) && has([0x2001_0db8, 0x0001_ffff, 7, 9], true));
        assert!(!has([0x2001_0db8, 0x0001_7fff, 7, 9], true) && !has([0xc000_0200, 0, 0, 0], true));
        let everybody = TracedPrefix::new([0; 16], 0, false);
        assert!(everybody.has(&flow([0xffff_ffff, 0, 0, 0], false)) && !everybody.has(&flow([1; 4], true)));
    }

    /// Goal: what begins or is refused is told, what an open connection does is not. Covers: C-701
    #[test]
    fn beginnings_and_refusals_are_told() {
        for (verdict, told) in [
            (Verdict::pass(Reason::Syn), true),
            (Verdict::drop(Reason::Banned), true),
            (Verdict { action: Action::WouldDrop, reason: Reason::DotSynRate }, true),
            (Verdict::pass(Reason::Stream), false),
            (Verdict::pass(Reason::Do53Datagram), false),
        ] {
            assert_eq!(is_told(verdict), told, "{verdict:?}");
            let seen =
                Seen { reason: verdict.reason as u32, action: verdict.action as u32, ..Seen::default() };
            assert_eq!(seen.verdict(), Some(verdict));
        }
        assert_eq!(Seen { reason: 999, ..Seen::default() }.verdict(), None);
    }
}
