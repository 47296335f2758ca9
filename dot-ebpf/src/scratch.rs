//! This CPU's memory for the packet that it judges: where the verifier's paths meet.
//!
//! Before: the parser reads a packet's fields, or the judge has a verdict. After: they are read again from a map, so that the
//! verifier knows nothing about their origin and continues with one path.
//! Holds: the map of one packet, its verdict and a word. Never: keeps anything beyond a packet's programs.

use aya_ebpf::{macros::map, maps::PerCpuArray};
use dot_common::{packet::Packet, verdict::Verdict};

use crate::context::forget;

/// Where the paths of the parser meet, and those of the judge.
#[repr(C)]
struct Scratch {
    packet: Packet,
    verdict: Verdict,
    word: u32,
}

#[map]
static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

/// Sends a value through this CPU's scratch map, so that the verifier forgets its history.
#[inline(always)]
pub(crate) fn through_scratch(value: u32) -> Option<u32> {
    let scratch = SCRATCH.get_ptr_mut(0)?;
    // SAFETY: a checked map value of this CPU, aligned to eight octets.
    unsafe {
        let word = &raw mut (*scratch).word;
        word.write_volatile(value);
        Some(word.read_volatile())
    }
}

/// The same for the verdict on a packet in [`room`], so that the verifier follows what comes after a verdict once, and
/// not once for each verdict. Needs no look-up: the verdict's place is beside the packet's.
#[inline(always)]
pub(crate) fn settle_verdict(packet: &Packet, verdict: Verdict) -> Verdict {
    let scratch: *mut Scratch = forget((&raw const *packet).cast_mut()).cast();
    // SAFETY: every packet of a judge is the first field of this CPU's checked map value (`room`), and no reference to the
    // verdict exists. What is read is what was written.
    unsafe {
        let place = &raw mut (*scratch).verdict;
        place.write_volatile(verdict);
        place.read_volatile()
    }
}

/// This CPU's memory for the packet that it reads. The verifier knows nothing about the values written there, so that
/// all paths to it become one; and the flow is a key in memory, as look-ups need it.
#[inline(always)]
pub(crate) fn room() -> Option<&'static mut Packet> {
    let scratch = SCRATCH.get_ptr_mut(0)?;
    // SAFETY: a checked map value of this CPU, aligned to eight octets, zero at first, which is a packet; nothing else
    // writes it before this frame's program ends.
    unsafe { Some(&mut (*scratch).packet) }
}

/// The packet in [`room`], after it was read.
#[inline(always)]
pub(crate) fn packet() -> Option<&'static Packet> {
    let scratch = SCRATCH.get_ptr_mut(0)?;
    // SAFETY: a checked map value of this CPU, written before this frame's judgment began.
    unsafe { Some(&*forget(&raw mut (*scratch).packet)) }
}
