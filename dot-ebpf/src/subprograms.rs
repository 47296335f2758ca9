//! The parts of a judgment that are functions for the kernel too, and the wrappers that call them.
//!
//! Before: the packet lies in this CPU's scratch map. After: a number, whose value the verifier does not know.
//! Holds: functions with external linkage. The verifier checks such a function once, by itself, and continues behind
//! each call with one state. It would check an inlined or static function again for every state that reaches it.
//! Never: takes a pointer except the context: a function reads its arguments from maps.

use aya_ebpf::{
    bindings::{__sk_buff, xdp_action, xdp_md},
    programs::{TcContext, XdpContext},
};
use dot_common::{
    client_cache::Standing,
    client_lists,
    frame::Located,
    network,
    proof::Trust,
    rate::Rate,
    spent,
    truncation::{self, Truncation},
    verdict::{Reason, Verdict},
    walk::{self, Walked},
    worker_status,
};

use crate::{
    cleartext,
    context::Frame,
    datagram::{Datagram, WALKABLE_OCTETS},
    judge::Kernel,
    lists, maps, notice, scratch, trace, truncate,
};

/// [`walk::locate`], for this CPU's packet in its map.
#[inline(always)]
pub(crate) fn walk(context: &XdpContext) -> Walked {
    Walked::of(dotd_walk(context.ctx))
}

/// The same for a packet at tc.
#[inline(always)]
pub(crate) fn walk_datagram(context: &TcContext) -> Walked {
    Walked::of(dotd_walk_datagram(context.skb.skb))
}

/// [`notice::note_packet`], for the packet that was judged last.
#[inline(always)]
pub(crate) fn note(verdict: Verdict) {
    dotd_note(verdict.reason as u32, verdict.action as u32);
}

/// [`trace::tell_packet`], for the packet that was judged last.
#[inline(always)]
pub(crate) fn tell(verdict: Verdict) {
    dotd_tell(verdict.reason as u32, verdict.action as u32);
}

/// Whether the packet's destination is this machine's, if this CPU has no cache entry for it.
#[inline(always)]
pub(crate) fn is_local() -> bool {
    dotd_is_local() != 0
}

/// [`client_lists::standing`], of a packet that this machine sent itself: nothing is remembered of that.
#[inline(always)]
pub(crate) fn own_standing() -> Standing {
    Standing::of(dotd_own_standing())
}

/// [`client_lists::standing`], of a client that this CPU does not remember.
#[inline(always)]
pub(crate) fn standing() -> Standing {
    Standing::of(dotd_standing())
}

/// [`client_lists::ban_at`], of a packet from another machine.
#[inline(always)]
pub(crate) fn ban_at(place: u32, begins: bool, is_barred: bool) -> Standing {
    Standing::of(dotd_ban_at(place, u32::from(begins), u32::from(is_barred)))
}

/// [`client_lists::would_ban`].
#[inline(always)]
pub(crate) fn would_ban() -> bool {
    dotd_would_ban() != 0
}

/// [`spent::spent_by`].
#[inline(always)]
pub(crate) fn spent_by() -> Option<Reason> {
    match dotd_spent_by() {
        0 => None,
        WIDE => Some(Reason::WideCost),
        _ => Some(Reason::HandshakeCost),
    }
}

/// What [`dotd_spent_by`] says where a wider prefix refuses.
const WIDE: u32 = 2;

/// [`spent::trust`].
#[inline(always)]
pub(crate) fn trust() -> Trust {
    match dotd_trust() {
        PROVEN => Trust::Proven,
        EXCESSIVE => Trust::Excessive,
        _ => Trust::Unknown,
    }
}

const PROVEN: u32 = 1;
const EXCESSIVE: u32 = 2;

/// [`worker_status::is_pressed`].
#[inline(always)]
pub(crate) fn is_pressed() -> bool {
    dotd_is_pressed() != 0
}

/// [`maps::admits`].
#[inline(always)]
pub(crate) fn admits(key: u64, rate: &Rate) -> bool {
    dotd_admits(key, rate.period_ns, rate.tolerance_ns) != 0
}

/// [`truncation::plan`].
#[inline(always)]
pub(crate) fn plan(context: &XdpContext) -> Option<Truncation> {
    unpacked(dotd_plan(context.ctx))
}

/// [`cleartext::reset`].
#[inline(always)]
pub(crate) fn reset(context: &XdpContext) -> u32 {
    dotd_reset(context.ctx)
}

/// [`truncate::answer`].
#[inline(always)]
pub(crate) fn answer(context: &XdpContext, truncation: &Truncation) -> u32 {
    dotd_answer(context.ctx, packed(truncation))
}

/// A plan as a number, which is not zero because a question has five octets at least.
const fn packed(truncation: &Truncation) -> u32 {
    truncation.question_octets << 1 | truncation.has_opt as u32
}

const fn unpacked(plan: u32) -> Option<Truncation> {
    if plan == 0 {
        return None;
    }
    Some(Truncation { question_octets: plan >> 1, has_opt: plan & 1 != 0 })
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn dotd_walk(context: *mut xdp_md) -> u32 {
    let Some(packet) = scratch::room() else { return Walked::Nowhere as u32 };
    let located: &mut Located = &mut packet.located;
    walk::locate(&Frame(&XdpContext::new(context)), located) as u32
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn dotd_walk_datagram(context: *mut __sk_buff) -> u32 {
    let Some(packet) = scratch::room() else { return Walked::Nowhere as u32 };
    let located: &mut Located = &mut packet.located;
    let context = TcContext::new(context);
    let datagram = Datagram(&context);
    if !datagram.is_straight() {
        datagram.gather::<WALKABLE_OCTETS>();
    }
    walk::locate(&datagram, located) as u32
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn dotd_note(reason: u32, action: u32) -> u32 {
    let (Some(settings), Some(packet)) = (maps::settings(), scratch::packet()) else { return 0 };
    notice::note_packet(settings, packet, reason, action);
    0
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn dotd_tell(reason: u32, action: u32) -> u32 {
    let (Some(settings), Some(packet)) = (maps::settings(), scratch::packet()) else { return 0 };
    trace::tell_packet(settings, packet, reason, action);
    0
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn dotd_is_local() -> u32 {
    let (Some(settings), Some(packet)) = (maps::settings(), scratch::packet()) else { return 1 };
    u32::from(lists::look_up_destination(settings, &packet.flow))
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn dotd_own_standing() -> u32 {
    let (Some(settings), Some(packet)) = (maps::settings(), scratch::packet()) else { return 0 };
    client_lists::standing(settings, &packet.flow, packet.begins(), &Kernel::of_own()).standing as u32
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn dotd_standing() -> u32 {
    let (Some(settings), Some(packet)) = (maps::settings(), scratch::packet()) else { return 0 };
    // Read before lists and bans are looked up: a change in the meantime invalidates the answer.
    let generation = maps::generation(settings);
    let said = client_lists::standing(settings, &packet.flow, packet.begins(), &Kernel::of_others());
    maps::memorize(&packet.flow, generation, &said);
    said.standing as u32
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn dotd_ban_at(place: u32, begins: u32, is_barred: u32) -> u32 {
    let (Some(settings), Some(packet)) = (maps::settings(), scratch::packet()) else { return 0 };
    let network = network::level(settings, &packet.flow, place);
    let known = Kernel::of_others();
    client_lists::ban_at(settings, &packet.flow, &network, begins != 0, is_barred != 0, &known) as u32
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn dotd_would_ban() -> u32 {
    let (Some(settings), Some(packet)) = (maps::settings(), scratch::packet()) else { return 0 };
    u32::from(client_lists::would_ban(settings, &packet.flow, &Kernel::of_others()))
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn dotd_spent_by() -> u32 {
    let (Some(settings), Some(packet)) = (maps::settings(), scratch::packet()) else { return 0 };
    match spent::spent_by(settings, &packet.flow, &Kernel::of_others()) {
        None => 0,
        Some(Reason::WideCost) => WIDE,
        Some(_) => 1,
    }
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn dotd_trust() -> u32 {
    let (Some(settings), Some(packet)) = (maps::settings(), scratch::packet()) else { return 0 };
    match spent::trust(settings, &packet.flow, &Kernel::of_others()) {
        Trust::Unknown => 0,
        Trust::Proven => PROVEN,
        Trust::Excessive => EXCESSIVE,
    }
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn dotd_is_pressed() -> u32 {
    u32::from(worker_status::is_pressed(maps::WORKER_COUNT.load(), maps::now_ns(), maps::closed_until_ns))
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn dotd_admits(key: u64, period_ns: u64, tolerance_ns: u64) -> u32 {
    u32::from(maps::admits(key, &Rate { period_ns, tolerance_ns }))
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn dotd_plan(context: *mut xdp_md) -> u32 {
    let Some(packet) = scratch::packet() else { return 0 };
    let context = XdpContext::new(context);
    truncation::plan(&Frame(&context), &packet.located).as_ref().map_or(0, packed)
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn dotd_reset(context: *mut xdp_md) -> u32 {
    let Some(packet) = scratch::packet() else { return xdp_action::XDP_DROP };
    cleartext::reset(&XdpContext::new(context), packet)
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn dotd_answer(context: *mut xdp_md, plan: u32) -> u32 {
    let (Some(packet), Some(truncation)) = (scratch::packet(), unpacked(plan)) else {
        return xdp_action::XDP_DROP;
    };
    truncate::answer(&XdpContext::new(context), packet, &truncation)
}
