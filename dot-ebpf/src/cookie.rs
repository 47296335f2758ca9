//! Answers a SYN with a SYN-ACK that needs no state: its sequence number is a cookie from the kernel.
//!
//! Before: the judge let a SYN pass. After: the client has its SYN-ACK, and no listener's queue grew. Whenever the
//! kernel wants no cookie for the SYN, the SYN goes to the stack as if this program did not exist.
//! Holds: the rate above which the kernel is asked, its two answers (the listener, the cookie), the rewriting.
//! Never: makes a cookie itself (raw ones reset real clients: the listener must know that it is flooded); remembers
//! anything of a client; sends more octets than came; answers for an address that is not this machine's.
//!
//! The client's ACK goes to the stack, which knows the cookie and makes the connection. The learner does not record
//! where the stream begins, because the sequence number comes from a SYN that may be forged. So the stream's octets
//! pass the gates as `unknown_flow`.
//!
//! Source: RFC 4987 §3.6 (SYN cookies), RFC 9293 §3.1 and §3.7.1 (MSS), bpf-helpers(7).

use aya_ebpf::{
    Global,
    bindings::xdp_action,
    helpers::{bpf_fib_lookup, bpf_tcp_gen_syncookie, bpf_xdp_load_bytes},
    macros::map,
    maps::{Array, PerCpuArray},
    programs::XdpContext,
};
use dot_common::{
    frame::Headers,
    packet::{Packet, Transport, flags},
    rate::Rate,
    settings::version_bit,
    tail_calls::is_over,
    verdict::{Action, Reason, Verdict},
};

use crate::{
    cleartext::fold,
    context::{Frame, Linear, opaque},
    maps, scratch, socket,
    tail_calls::{self, NOTHING_LEFT},
    trace,
};

/// The rate of all SYNs together above which cookies are asked for; a period of 0 means always. Set by the loader
/// before the program loads.
#[unsafe(no_mangle)]
static FLOOD_PERIOD_NS: Global<u64> = Global::new(0);
#[unsafe(no_mangle)]
static FLOOD_TOLERANCE_NS: Global<u64> = Global::new(0);

/// The schedule of that rate. Beyond the rate it is only read, so that CPUs do not fight for it in a flood.
#[map]
static FLOOD: Array<u64> = Array::with_max_entries(1, 0);

/// An IP header of up to 40 octets, then a TCP header of up to 60: the kernel wants them adjacent in memory.
const IP_OCTETS_MAX: usize = 40;
#[map]
static HEADERS: PerCpuArray<[u32; 32]> = PerCpuArray::with_max_entries(1, 0);

const PROTOCOL_TCP: u32 = 6;
const HOPS: u32 = 64;
/// Shortest frame of Ethernet, without its checksum.
const FRAME_OCTETS_MIN: u32 = 60;
/// The window that a client gets until the stack announces its own: more than any ClientHello, less than any listener's
/// buffer.
pub(crate) const WINDOW: u32 = 29_200;
/// The largest segments that the client may send: those of a usual link, even if the client offers larger ones.
const SEGMENT_OCTETS_MAX: (u32, u32) = (1460, 1440);

/// A cookie, and the segment size that it stands for.
struct Cookie {
    sequence: u32,
    segment_octets: u32,
}

/// Answers the SYN that the judge let pass, or lets it pass; counts which.
#[inline(always)]
pub(crate) fn answer(context: &XdpContext) -> u32 {
    let (Some(packet), Some(left)) = (scratch::packet(), tail_calls::left()) else { return NOTHING_LEFT };
    let passes = [Reason::Syn, Reason::Proven, Reason::Unproven];
    let reason = passes.into_iter().find(|reason| *reason as u32 == left.reason()).unwrap_or(Reason::Syn);
    let is_wanted = is_over(reason) || is_flood();
    let cookie = if is_wanted { cookie_for(context, packet) } else { None };
    let Some(cookie) = cookie else {
        maps::count(Verdict::pass(reason));
        return tail_calls::pass(context, xdp_action::XDP_PASS);
    };
    let (action, xdp_action) = match rewrite(context, packet, &cookie) {
        Some(()) => (Action::Answer, xdp_action::XDP_TX),
        // The frame may be half rewritten: the stack must not see it.
        None => (Action::Drop, xdp_action::XDP_DROP),
    };
    let verdict = Verdict { action, reason: Reason::SynCookie };
    maps::count(verdict);
    if let Some(settings) = maps::settings() {
        trace::tell(settings, verdict);
    }
    xdp_action
}

/// Whether SYNs come faster than the rate, or there is no rate.
#[inline(always)]
pub(crate) fn is_flood() -> bool {
    let rate = Rate { period_ns: FLOOD_PERIOD_NS.load(), tolerance_ns: FLOOD_TOLERANCE_NS.load() };
    if !rate.is_limit() {
        return true;
    }
    let Some(schedule) = FLOOD.get_ptr_mut(0) else { return true };
    // SAFETY: a checked map value, aligned to eight octets.
    let scheduled_ns = unsafe { schedule.read_volatile() };
    match rate.admit(scheduled_ns, maps::now_ns()) {
        // If another CPU was first, only its packet is counted: the stack gets one SYN more.
        Some(next_ns) => {
            maps::exchange(schedule, scheduled_ns, next_ns);
            false
        }
        None => true,
    }
}

/// The kernel's cookie. `None`: the kernel wants no cookie, or the SYN is not for a listener here, or has unusual
/// headers.
#[inline(always)]
fn cookie_for(context: &XdpContext, packet: &Packet) -> Option<Cookie> {
    let Transport::Tcp(segment) = packet.transport else { return None };
    let located = &packet.located;
    let is_v6 = located.is_v6();
    let ip_octets: u32 = if is_v6 { 40 } else { 20 };
    if located.transport - located.ip != ip_octets || !is_ours(context, packet) {
        return None;
    }
    let headers = HEADERS.get_ptr_mut(0)?.cast::<u8>();
    let words = segment.payload_offset.wrapping_sub(located.transport) / 4;
    // 20 to 80 by construction; either the length that the header states or zero.
    let tcp_octets = ((opaque(words.wrapping_sub(5) as usize) & 0xf) as u32 + 5) * 4;
    if tcp_octets != words * 4 {
        return None;
    }
    // SAFETY: a checked map value of this CPU; 40 octets of it.
    if unsafe { bpf_xdp_load_bytes(context.ctx, located.ip, headers.cast(), ip_octets) } != 0 {
        return None;
    }
    // SAFETY: 40 and at most 80 octets are less than the value's 128.
    let tcp = unsafe { headers.add(IP_OCTETS_MAX) };
    // SAFETY: as above.
    if unsafe { bpf_xdp_load_bytes(context.ctx, located.transport, tcp.cast(), tcp_octets) } != 0 {
        return None;
    }
    let cookie = socket::of(context.ctx.cast(), &packet.flow, |socket| {
        // SAFETY: the socket is there until it is released; both headers are as long as said.
        unsafe { bpf_tcp_gen_syncookie(socket.cast(), headers.cast(), ip_octets, tcp.cast(), tcp_octets) }
    })?;
    // Negative: the listener's queue has room, `net.ipv4.tcp_syncookies` is 0, or it is no listener.
    if cookie < 0 {
        return None;
    }
    let most = if is_v6 { SEGMENT_OCTETS_MAX.1 } else { SEGMENT_OCTETS_MAX.0 };
    let segment_octets = (cookie >> 32) as u32 & 0xffff;
    Some(Cookie {
        sequence: cookie as u32,
        segment_octets: if segment_octets < most { segment_octets } else { most },
    })
}

/// Whether a packet is for this machine: neither forwarded, nor multicast or broadcast.
#[inline(always)]
fn is_ours(context: &XdpContext, packet: &Packet) -> bool {
    const GROUP: u32 = 0x0100_0000;
    const NOT_FORWARDED: i64 = 4;
    const FORWARDS_NOTHING: i64 = 5;
    const AF_INET: u32 = 2;
    const AF_INET6: u32 = 10;
    let is_group = Frame(context).words_at::<1>(0).is_none_or(|[first]| first & GROUP != 0);
    if is_group {
        return false;
    }
    // Where this machine's addresses are known, the judge passes only packets to them to this program.
    let is_known =
        maps::settings().is_some_and(|settings| settings.local & version_bit(packet.flow.is_v6()) != 0);
    if is_known {
        return true;
    }
    let flow = &packet.flow;
    let [a, b, c, d, e, f, g, h, _] = flow.v6();
    let family = if flow.is_v6() { AF_INET6 } else { AF_INET };
    let interface = Frame(context).interface();
    // struct bpf_fib_lookup: family; length; interface; type of service; source; destination; answers.
    let mut question = [family, 0, interface, 0, a, b, c, d, e, f, g, h, 0, 0, 0, 0];
    let octets = size_of_val(&question) as i32;
    // SAFETY: the question is as long as said.
    let answer = unsafe { bpf_fib_lookup(context.ctx.cast(), question.as_mut_ptr().cast(), octets, 0) };
    answer == NOT_FORWARDED || answer == FORWARDS_NOTHING
}

/// Turns the SYN into its SYN-ACK, with whole checksums; never longer than it was.
#[inline(always)]
fn rewrite(context: &XdpContext, packet: &Packet, cookie: &Cookie) -> Option<()> {
    let Transport::Tcp(segment) = packet.transport else { return None };
    let (frame, located) = (Frame(context), &packet.located);
    let has_option = segment.payload_offset - located.transport >= 24;
    let tcp_octets: u32 = if has_option { 24 } else { 20 };
    // Kind 2, four octets. Without it the client takes 536 (RFC 9293 §3.7.1).
    let option = if has_option { 0x0204_0000 | cookie.segment_octets } else { 0 };
    let ports = packet.flow.ports.rotate_left(16);
    let acknowledgment = segment.sequence.wrapping_add(1);
    let control = (tcp_octets / 4) << 28 | u32::from(flags::SYN | flags::ACK) << 16 | WINDOW;
    let ([a, b, c, d], [e, f, g, h]) = (packet.flow.client_words(), packet.flow.server_words());
    let mut sum = PROTOCOL_TCP + tcp_octets;
    for word in [a, b, c, d, e, f, g, h, ports, cookie.sequence, acknowledgment, control, option] {
        sum += (word >> 16) + (word & 0xffff);
    }
    let tcp = located.transport;
    frame.put_word(tcp, ports)?;
    frame.put_word(tcp + 4, cookie.sequence)?;
    frame.put_word(tcp + 8, acknowledgment)?;
    frame.put_word(tcp + 12, control)?;
    frame.put_word(tcp + 16, u32::from(fold(sum)) << 16)?;
    if has_option {
        frame.put_word(tcp + 20, option)?;
    }
    if located.is_v6() {
        write_v6(&frame, packet, tcp_octets)?;
    } else {
        write_v4(&frame, packet, tcp_octets)?;
    }
    frame.turn_round()?;
    let end = tcp + tcp_octets;
    let kept = if end < FRAME_OCTETS_MIN { FRAME_OCTETS_MIN } else { end };
    frame.shorten(context.octets().saturating_sub(kept))
}

/// A whole IPv4 header: no service, no fragments, no options.
#[inline(always)]
fn write_v4(frame: &Frame<'_, XdpContext>, packet: &Packet, octets: u32) -> Option<()> {
    const DONT_FRAGMENT: u32 = 0x4000;
    let ip = packet.located.ip;
    let first = 0x4500_0000 | (20 + octets);
    let third = HOPS << 24 | PROTOCOL_TCP << 16;
    let ([source, ..], [destination, ..]) = (packet.flow.server_words(), packet.flow.client_words());
    let mut sum = 0;
    for word in [first, DONT_FRAGMENT, third, source, destination] {
        sum += (word >> 16) + (word & 0xffff);
    }
    frame.put_word(ip, first)?;
    frame.put_word(ip + 4, DONT_FRAGMENT)?;
    frame.put_word(ip + 8, third | u32::from(fold(sum)))?;
    frame.put_word(ip + 12, source)?;
    frame.put_word(ip + 16, destination)
}

/// A whole IPv6 header; no traffic class, no flow label.
#[inline(always)]
fn write_v6(frame: &Frame<'_, XdpContext>, packet: &Packet, octets: u32) -> Option<()> {
    let ip = packet.located.ip;
    frame.put_word(ip, 6 << 28)?;
    frame.put_word(ip + 4, octets << 16 | PROTOCOL_TCP << 8 | HOPS)?;
    let (mut at, [a, b, c, d], [e, f, g, h]) =
        (ip + 8, packet.flow.server_words(), packet.flow.client_words());
    for word in [a, b, c, d, e, f, g, h] {
        frame.put_word(at, word)?;
        at += 4;
    }
    Some(())
}
