//! Tells an operator who traces clients of their packets: a SYN, or a packet that is refused, with its verdict.
//!
//! Before: the judge, or the program that makes cookies, has a verdict. After: the event is in the ring, or is counted as lost.
//! Holds: the traced prefixes, the pace of events, the ring. The shapes are in `dot_common::traced`.
//! Never: changes what happens to a packet; looks at a map while there is no trace.

use aya_ebpf::{
    macros::map,
    maps::{Array, PerCpuArray, RingBuf},
};
use dot_common::{
    packet::{Packet, Service, Transport},
    rate::{self, Class},
    settings::Settings,
    traced::{PACE, RING_OCTETS, Seen, Traced, is_told},
    verdict::Verdict,
};

use crate::{maps, subprograms};

#[map]
static TRACED: Array<Traced> = Array::with_max_entries(1, 0);

#[map]
static TRACE_EVENTS: RingBuf = RingBuf::with_byte_size(RING_OCTETS, 0);

#[map]
static TRACE_PACE: Array<u64> = Array::with_max_entries(1, 0);

#[map]
static TRACE_LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Tells of the packet that was judged last, while there is a trace.
#[inline(always)]
pub(crate) fn tell(settings: &Settings, verdict: Verdict) {
    if settings.traced != 0 && is_told(verdict) {
        subprograms::tell(verdict);
    }
}

/// Tells of a packet, if its client is traced.
#[inline(always)]
pub(crate) fn tell_packet(settings: &Settings, packet: &Packet, reason: u32, action: u32) {
    let Some(traced) = TRACED.get(0) else { return };
    if !traced.has(&packet.flow) {
        return;
    }
    let now_ns = maps::precise_now_ns();
    let is_sent = is_in_pace(now_ns) && send(settings, packet, reason, action, now_ns);
    if !is_sent && let Some(lost) = TRACE_LOST.get_ptr_mut(0) {
        // SAFETY: a checked map value of this CPU.
        unsafe { *lost += 1 };
    }
}

#[inline(always)]
fn is_in_pace(now_ns: u64) -> bool {
    let Some(pace) = TRACE_PACE.get_ptr_mut(0) else { return false };
    // SAFETY: a checked map value, aligned to eight octets.
    let scheduled_ns = unsafe { pace.read_volatile() };
    PACE.admit(scheduled_ns, now_ns).is_some_and(|next_ns| maps::exchange(pace, scheduled_ns, next_ns))
}

#[inline(always)]
fn send(settings: &Settings, packet: &Packet, reason: u32, action: u32, now_ns: u64) -> bool {
    let class = match (&packet.transport, packet.service) {
        (Transport::Tcp(_), Service::Dot) => Some(Class::DotSyn),
        (Transport::Tcp(_), Service::Do53) => Some(Class::Do53Syn),
        (Transport::Udp, Service::Do53) => Some(Class::Do53Query),
        _ => None,
    };
    let client = rate::client(&packet.flow, settings.prefix_v4, settings.prefix_v6);
    let scheduled_ns = class.map_or(0, |class| maps::scheduled_ns(rate::key(class, client)));
    let Some(mut entry) = TRACE_EVENTS.reserve::<Seen>(0) else { return false };
    entry.write(Seen { at_ns: now_ns, scheduled_ns, flow: packet.flow, reason, action });
    entry.submit(0);
    true
}
