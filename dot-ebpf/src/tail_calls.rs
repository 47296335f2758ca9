//! Hands a judged frame to the program that follows, if the config wants one and it is loaded.
//!
//! Before: the verdict was counted, and the frame has its final form. After: the follower ran in place of the rest of
//! this program, or nothing changed.
//! Holds: the jumps, and what is left for the follower. Never: hands over a frame that was not judged.

use aya_ebpf::{
    Global,
    bindings::xdp_action,
    macros::map,
    maps::{PerCpuArray, ProgramArray},
    programs::XdpContext,
};
use dot_common::{
    notice,
    tail_calls::{self, Left},
    verdict::{Action, Verdict},
};

use crate::subprograms;

#[map]
static CHAIN: ProgramArray = ProgramArray::with_max_entries(tail_calls::SLOTS, 0);

#[map]
static LEFT: PerCpuArray<Left> = PerCpuArray::with_max_entries(1, 0);

/// Bits of the slots that are used; set by the loader before the programs load, so that the kernel sees no jump where
/// none is wanted.
#[unsafe(no_mangle)]
static FOLLOW: Global<u32> = Global::new(0);

/// Whether a slot is used.
#[inline(always)]
fn has(slot: u32) -> bool {
    FOLLOW.load() & tail_calls::bit(slot) != 0
}

/// Gives a SYN that passes to the program that may answer it. That program also counts it; nothing is counted here.
#[inline(always)]
pub(crate) fn begin(context: &XdpContext, verdict: Verdict) {
    if has(tail_calls::COOKIE)
        && matches!(verdict.action, Action::Pass)
        && tail_calls::may_be_cookie(verdict.reason)
    {
        leave(verdict, xdp_action::XDP_PASS);
        jump(context, tail_calls::COOKIE);
    }
}

/// Sends a notice that a packet was refused at tc, directly, because the programs that follow are for XDP only.
#[inline(always)]
pub(crate) fn announce(verdict: Verdict) {
    if has(tail_calls::NOTICE) && notice::is_noted(verdict) {
        subprograms::note(verdict);
    }
}

/// The end of the judging program: the action, unless a follower takes over, which ends with the same action.
#[inline(always)]
pub(crate) fn finish(context: &XdpContext, verdict: Verdict, xdp_action: u32) -> u32 {
    if has(tail_calls::NOTICE) && notice::is_noted(verdict) {
        leave(verdict, xdp_action);
        jump(context, tail_calls::NOTICE);
    }
    pass(context, xdp_action)
}

/// The same action, on the CPU of the packet's connection if it passes and the config wants that.
#[inline(always)]
pub(crate) fn pass(context: &XdpContext, xdp_action: u32) -> u32 {
    if has(tail_calls::SPREAD) && xdp_action == xdp_action::XDP_PASS {
        jump(context, tail_calls::SPREAD);
    }
    xdp_action
}

/// What the judging program left; the look-up cannot fail.
#[inline(always)]
pub(crate) fn left() -> Option<Left> {
    LEFT.get(0).copied()
}

#[inline(always)]
fn leave(verdict: Verdict, xdp_action: u32) {
    let Some(left) = LEFT.get_ptr_mut(0) else { return };
    let numbers = (verdict.action as u32) << 16 | verdict.reason as u32;
    // SAFETY: a checked map value of this CPU; nothing writes it again before this frame's programs end.
    unsafe { *left = Left { xdp_action, verdict: numbers } };
}

#[inline(always)]
fn jump(context: &XdpContext, slot: u32) {
    // SAFETY: the context is the one the kernel gave this program. It comes back when the slot is empty.
    unsafe { CHAIN.tail_call(context, slot) };
}

/// The action of a follower that finds nothing left for it. This cannot happen: the frame was judged, and passes.
pub(crate) const NOTHING_LEFT: u32 = xdp_action::XDP_PASS;
