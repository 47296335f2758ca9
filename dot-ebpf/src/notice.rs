//! Reports once a minute that a client is refused, and why. Follows the judge where the log wants notices.
//!
//! Before: a packet was refused, or would have been. After: a notice is in the ring, or its loss is counted, and the
//! packet ends as it would have without this program.
//! Holds: the table of sent notices, the pace of each reason, the ring. The arithmetic is in `dot_common::notice`.
//! Never: names an address longer than a client prefix, waits, or changes the action for a packet.

use aya_ebpf::{
    macros::map,
    maps::{Array, PerCpuArray, RingBuf},
    programs::XdpContext,
};
use dot_common::{
    notice::{Fate, Notice, PACE, Place, REASONS_MAX, RING_OCTETS, SLOTS},
    packet::Packet,
    rate,
    settings::Settings,
};

use crate::{
    maps, scratch,
    tail_calls::{self, NOTHING_LEFT},
};

#[map]
static NOTICES: RingBuf = RingBuf::with_byte_size(RING_OCTETS, 0);

#[map]
static NOTICED: Array<u64> = Array::with_max_entries(SLOTS, 0);

#[map]
static NOTICE_PACE: Array<u64> = Array::with_max_entries(REASONS_MAX, 0);

#[map]
static NOTICE_COUNTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Fate::ALL.len() as u32, 0);

/// Sends a notice of the refusal, and ends with the action that the judge left.
#[inline(always)]
pub(crate) fn note(context: &XdpContext) -> u32 {
    let Some(left) = tail_calls::left() else { return NOTHING_LEFT };
    if let (Some(settings), Some(packet)) = (maps::settings(), scratch::packet()) {
        note_packet(settings, packet, left.reason(), left.verdict >> 16);
    }
    tail_calls::pass(context, left.xdp_action)
}

/// Sends a notice that a packet was refused, or would have been.
#[inline(always)]
pub(crate) fn note_packet(settings: &Settings, packet: &Packet, reason: u32, action: u32) {
    let client = rate::client(&packet.flow, settings.prefix_v4, settings.prefix_v6);
    let place = Place::of(client, reason);
    let Some(word) = NOTICED.get_ptr_mut(place.slot) else { return };
    let now_ns = maps::now_ns();
    // SAFETY: a checked map value, aligned to eight octets; another CPU may write it meanwhile, as a whole.
    if !place.is_due(unsafe { word.read_volatile() }, now_ns) {
        return;
    }
    let Some(fate) = send(Notice { client: client.key(), reason, action }, now_ns) else { return };
    // A notice that was not sent is tried again with the next packet.
    if matches!(fate, Fate::Sent) {
        // SAFETY: as above.
        unsafe { word.write_volatile(place.word(now_ns)) };
    }
    if let Some(count) = NOTICE_COUNTS.get_ptr_mut(fate as u32) {
        // SAFETY: a checked map value of this CPU.
        unsafe { *count += 1 };
    }
}

/// Puts a notice into the ring, if the pace of its reason allows it.
#[inline(always)]
fn send(notice: Notice, now_ns: u64) -> Option<Fate> {
    let pace = NOTICE_PACE.get_ptr_mut(notice.reason)?;
    // SAFETY: a checked map value, aligned to eight octets.
    let scheduled_ns = unsafe { pace.read_volatile() };
    let Some(next_ns) = PACE.admit(scheduled_ns, now_ns) else { return Some(Fate::HeldBack) };
    if !maps::exchange(pace, scheduled_ns, next_ns) {
        return Some(Fate::HeldBack);
    }
    let Some(mut entry) = NOTICES.reserve::<Notice>(0) else { return Some(Fate::Lost) };
    entry.write(notice);
    entry.submit(0);
    Some(Fate::Sent)
}
