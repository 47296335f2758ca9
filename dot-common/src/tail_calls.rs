//! The programs that may follow the judging program, each only where the config wants it.
//!
//! Before: the loader found a feature in the config, and loaded its program. After: `dotd_xdp` jumps there (a tail
//! call); if the slot is empty, it goes on as if there were no such feature.
//! Holds: the slots of the map CHAIN, and the bits of the constant FOLLOW, without which the kernel does not even
//! compile the jumps. Never: decides about a packet.
//!
//! When dotd crashes the slots become empty, because the kernel empties an array of programs when its last holder is
//! gone: the pinned link goes on judging without tail calls.

use crate::verdict::Reason;

/// Sends a notice of a refusal.
pub const NOTICE: u32 = 0;
/// Answers a SYN with a cookie.
pub const COOKIE: u32 = 1;
/// Moves a packet that passes to the CPU of its connection.
pub const SPREAD: u32 = 2;
/// The number of slots.
pub const SLOTS: u32 = 3;

/// The bit of a slot in FOLLOW.
#[must_use]
#[inline(always)]
pub const fn bit(slot: u32) -> u32 {
    1 << slot
}

/// Whether a cookie may answer a packet that passes for this reason.
#[must_use]
#[inline(always)]
pub const fn may_be_cookie(reason: Reason) -> bool {
    matches!(reason, Reason::Syn) || is_over(reason)
}

/// Whether a SYN that passes for this reason is over its client's rate, so that a cookie is asked for whatever the rate
/// of SYNs is.
#[must_use]
#[inline(always)]
pub const fn is_over(reason: Reason) -> bool {
    matches!(reason, Reason::Proven | Reason::Unproven)
}

/// The data that the judging program leaves for its follower. Two 32-bit words, no padding.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// The XDP action that is taken in the end.
    pub xdp_action: u32,
    /// The number of the verdict's reason in the low half, that of its action in the high one.
    pub verdict: u32,
}

const _: () = assert!(size_of::<Left>() == 8);

impl Left {
    /// The number of the verdict's reason.
    #[must_use]
    #[inline(always)]
    pub const fn reason(&self) -> u32 {
        self.verdict & 0xffff
    }
}
