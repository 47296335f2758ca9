//! Answers SYNs of a flood at tc ingress, with cookies that keep the client's TCP options, and gives the stack the connection
//! when the client answers.
//!
//! Before: the judge let a packet pass. After: a SYN became its SYN-ACK; the ACK of one brings a request with the client's window
//! scale, SACK and timestamps to the listener, and the gate knows where the stream begins. Everything else goes to the
//! stack as if this program did not exist.
//! Holds: the conditions, and the call of the kernel function, whose number the loader writes into the program. What refuses a
//! SYN refuses an ACK that begins a connection too: the client needs no SYN as long as its cookie lives.
//! Never: runs before Linux 6.9; answers for an address that is not this machine's, for a port without a listener, or a SYN with
//! octets, tags, IP options or an unusual arrangement of options; sends more octets than came.
//!
//! Source: RFC 4987 §3.6; the kernel's net/core/filter.c (bpf_sk_assign_tcp_reqsk).

use core::arch::asm;

use aya_ebpf::{
    Global,
    bindings::{__sk_buff, TC_ACT_SHOT, TC_ACT_UNSPEC, bpf_sock},
    cty::c_void,
    helpers::{bpf_redirect, bpf_skc_to_tcp_sock},
    macros::map,
    maps::{Array, PerCpuArray},
    programs::TcContext,
};
use dot_common::{
    flow::{Flow, FlowKey},
    frame::Headers,
    judge::judge_completion,
    maps::{PROXY_ANSWERED, PROXY_COMPLETED, PROXY_FATES, PROXY_MARK, PROXY_REFUSED},
    packet::{self, Service, Transport, flags},
    settings::{Services, version_bit},
    syn_proxy::{self, NO_SCALE, OWN_SCALE, Secret},
    verdict::Action,
};

use crate::{
    context::Frame,
    cookie::is_flood,
    judge::Kernel,
    lists, maps,
    ports::OwnPorts,
    scratch, socket,
    syn_ack::{ETHERNET_OCTETS, PROTOCOL_TCP, Segment, begin_with_link, copy, rewrite, sum_of},
};

/// The secret, set by the loader before the program loads.
#[unsafe(no_mangle)]
static PROXY_SECRET_A: Global<u64> = Global::new(0);
#[unsafe(no_mangle)]
static PROXY_SECRET_B: Global<u64> = Global::new(0);

/// When the last cookie was sent, to a second: an ACK is looked at only within a cookie's life after it.
#[map]
static PROXY_SENT: Array<u64> = Array::with_max_entries(1, 0);

#[map]
static PROXY_COUNTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(PROXY_FATES, 0);

const LIFE_NS: u64 = 2 << 36;
/// Packets of one connection that came within this time may have come in one batch of the stack's: two ticks of the slowest clock.
const TOGETHER_NS: u64 = 20_000_000;
const SECOND_NS: u64 = 1_000_000_000;
const LISTENS: u32 = 10;
/// PACKET_HOST.
const PACKET_HOST: u32 = 0;

/// What the stages say of a packet whose connection would begin now; no tc action has this number.
const BEGINS: u32 = 0x100;

/// The tc action for a packet.
///
/// Two stages are functions for the kernel too, because the stack of all functions in a chain of calls is bounded (512 octets): the
/// judge between them makes calls, and needs most of it.
#[inline(always)]
pub(crate) fn proxy(context: &TcContext) -> i32 {
    let said = dotd_proxy_look(context.skb.skb);
    if said != BEGINS {
        return said as i32;
    }
    // Only now is it sure that a connection would begin: a client is charged for nothing else.
    if is_refused(context) {
        count(PROXY_REFUSED);
        return TC_ACT_SHOT;
    }
    dotd_proxy_give(context.skb.skb);
    TC_ACT_UNSPEC
}

/// The tc action for a SYN, or [`BEGINS`] for an ACK that begins a connection at a listener.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn dotd_proxy_look(skb: *mut __sk_buff) -> u32 {
    let context = TcContext::new(skb);
    let Some(segment) = read(&context) else { return TC_ACT_UNSPEC as u32 };
    let kind = segment.control >> 16 & u32::from(flags::SYN | flags::ACK | flags::RST | flags::FIN);
    if kind == u32::from(flags::SYN) {
        return answer(&context, &segment) as u32;
    }
    if kind == u32::from(flags::ACK) && begins(&context, &segment) {
        return BEGINS;
    }
    TC_ACT_UNSPEC as u32
}

/// A segment to one of our TLS ports, in a frame that is for this machine.
#[inline(always)]
fn read(context: &TcContext) -> Option<Segment> {
    // SAFETY: the context is the one the kernel gave this program; three words of it.
    let (has_tag, kind, protocol) = unsafe {
        let skb = context.skb.skb;
        ((*skb).vlan_present != 0, (*skb).pkt_type, u16::from_be((*skb).protocol as u16))
    };
    if has_tag || kind != PACKET_HOST {
        return None;
    }
    let (flow, ip_octets, octets) = match protocol {
        0x0800 => {
            let [first, fragment, third, source, destination] = copy::<5>(context, 0)?;
            // No options; neither an offset nor more fragments; TCP.
            if first >> 24 != 0x45 || fragment & 0x3fff != 0 || third >> 16 & 0xff != PROTOCOL_TCP {
                return None;
            }
            let flow = FlowKey::new([source, 0, 0, 0], 0, [destination, 0, 0, 0], 0, false);
            (flow, 20, (first & 0xffff).wrapping_sub(20))
        }
        0x86dd => {
            let [_, second, a, b, c, d, e, f, g, h] = copy::<10>(context, 0)?;
            if second >> 8 & 0xff != PROTOCOL_TCP {
                return None;
            }
            (FlowKey::new([a, b, c, d], 0, [e, f, g, h], 0, true), 40, second >> 16)
        }
        _ => return None,
    };
    let [ports, sequence, acknowledgment, control] = copy::<4>(context, ip_octets)?;
    if !matches!(OwnPorts.service(ports as u16), Some(Service::Dot)) {
        return None;
    }
    let tcp = ETHERNET_OCTETS + ip_octets;
    Some(Segment { flow: FlowKey { ports, ..flow }, tcp, sequence, acknowledgment, control, octets })
}

#[inline(always)]
fn secret() -> Secret {
    [PROXY_SECRET_A.load(), PROXY_SECRET_B.load()]
}

#[inline(always)]
fn count(fate: u32) {
    if let Some(counter) = PROXY_COUNTS.get_ptr_mut(fate) {
        // SAFETY: a checked map value of this CPU.
        unsafe { *counter += 1 };
    }
}

/// Turns a SYN into its SYN-ACK, if SYNs to this machine come faster than the rate and a listener waits for it. Others' SYNs
/// are not counted.
#[inline(always)]
fn answer(context: &TcContext, segment: &Segment) -> i32 {
    let frame = Frame(context);
    let words = segment.control >> 28;
    if words * 4 != segment.octets
        || !is_answerable(&segment.flow)
        || !is_flood()
        || !is_listening(context, &segment.flow)
    {
        return TC_ACT_UNSPEC;
    }
    if begin_with_link(context).is_none() {
        return TC_ACT_UNSPEC;
    }
    let count_of_options = words.wrapping_sub(syn_proxy::HEADER_WORDS);
    let options = match count_of_options {
        1 => frame.words_at::<1>(segment.tcp + 20).map(|[a]| [a, 0, 0, 0, 0, 0]),
        3 => frame.words_at::<3>(segment.tcp + 20).map(|[a, b, c]| [a, b, c, 0, 0, 0]),
        5 => frame.words_at::<5>(segment.tcp + 20).map(|[a, b, c, d, e]| [a, b, c, d, e, 0]),
        6 => frame.words_at::<6>(segment.tcp + 20),
        _ => None,
    };
    let Some(words) = options else { return TC_ACT_UNSPEC };
    let Some(offer) = syn_proxy::offered(words, count_of_options, segment.flow.is_v6()) else {
        return TC_ACT_UNSPEC;
    };
    let Some(is_partial) = sum_of(&frame, segment, words) else { return TC_ACT_UNSPEC };
    let now_ns = maps::now_ns();
    let cookie = syn_proxy::make(secret(), &segment.flow, segment.sequence, &offer, now_ns);
    if rewrite(&frame, segment, count_of_options, &offer, &cookie, is_partial).is_none() {
        // The frame may be half rewritten: the stack must not see it.
        return TC_ACT_SHOT;
    }
    if let Some(sent) = PROXY_SENT.get_ptr_mut(0) {
        // SAFETY: a checked map value, aligned to eight octets; CPUs write nearly the same.
        unsafe {
            if now_ns.wrapping_sub(sent.read_volatile()) > SECOND_NS {
                sent.write_volatile(now_ns);
            }
        }
    }
    count(PROXY_ANSWERED);
    // SAFETY: the context is the one the kernel gave this program.
    let interface = unsafe { (*context.skb.skb).ifindex };
    // SAFETY: takes two numbers; the frame leaves by the interface that it came in on.
    unsafe { bpf_redirect(interface, 0) as i32 }
}

/// Whether the stack takes cookies, and a packet is for an address of this machine; the answer is no where those are not known.
#[inline(always)]
fn is_answerable(flow: &FlowKey) -> bool {
    let Some(settings) = maps::settings() else { return false };
    let is_local = || {
        lists::recall_destination(settings, flow)
            .unwrap_or_else(|| lists::look_up_destination(settings, flow))
    };
    settings.takes_cookies != 0 && settings.local & version_bit(flow.is_v6()) != 0 && is_local()
}

/// Whether a listener waits at a packet's port, with no connection there already.
#[inline(always)]
fn is_listening(context: &TcContext, flow: &FlowKey) -> bool {
    // SAFETY: the socket is there until it is released; one word of it.
    socket::of(context.skb.skb.cast(), flow, |socket| unsafe { (*socket).state } == LISTENS).unwrap_or(false)
}

/// The attributes of a request, as the kernel function takes them (struct bpf_tcp_req_attrs).
#[repr(C)]
struct Attributes {
    their_timestamp: u32,
    our_timestamp: u32,
    segment_octets: u16,
    our_scale: u8,
    their_scale: u8,
    has_ecn: u8,
    has_scale: u8,
    has_sack: u8,
    has_timestamp: u8,
    has_microseconds: u8,
    reserved: [u8; 3],
}

const _: () = assert!(size_of::<Attributes>() == 20);

/// The request for the packet that begins a connection, between the stages.
#[map]
static PROXY_REQUEST: PerCpuArray<Attributes> = PerCpuArray::with_max_entries(1, 0);

/// Whether an ACK has a cookie of ours, and a listener waits for it. Then the request is in its map, and the packet is judged as a SYN
/// of its client.
#[inline(always)]
fn begins(context: &TcContext, segment: &Segment) -> bool {
    const TIME: u32 = 0x0101_080a;
    let now_ns = maps::now_ns();
    let Some(sent_ns) = PROXY_SENT.get(0).copied() else { return false };
    if sent_ns == 0 || now_ns.wrapping_sub(sent_ns) > LIFE_NS {
        return false;
    }
    // The kernel copies the words: LLVM would keep registers of an option that are not set, which the verifier refuses.
    let mut times = [0u32; 3];
    if segment.control >> 28 >= 8 {
        times = copy::<3>(context, segment.tcp - ETHERNET_OCTETS + 20).unwrap_or_default();
    }
    let [kind, theirs, echo] = times;
    let initial = segment.sequence.wrapping_sub(1);
    let cookie = segment.acknowledgment.wrapping_sub(1);
    let echoed = if kind == TIME { Some(echo) } else { None };
    let Some(found) = syn_proxy::check(secret(), &segment.flow, initial, cookie, echoed, now_ns) else {
        return false;
    };
    // An ACK and the octets behind it that came in one batch pass this hook before the stack makes the connection of the first.
    let is_begun = |flow: Flow| flow.initial == initial && now_ns.wrapping_sub(flow.learned_ns) < TOGETHER_NS;
    if maps::flow(&segment.flow).is_some_and(is_begun) || !is_listening(context, &segment.flow) {
        return false;
    }
    let (Some(request), Some(packet)) = (PROXY_REQUEST.get_ptr_mut(0), scratch::room()) else { return false };
    let attributes = Attributes {
        their_timestamp: theirs,
        our_timestamp: echo,
        segment_octets: found.segment_octets as u16,
        our_scale: if found.scale == NO_SCALE { 0 } else { OWN_SCALE as u8 },
        their_scale: if found.scale == NO_SCALE { 0 } else { found.scale as u8 },
        has_ecn: 0,
        has_scale: u8::from(found.scale != NO_SCALE),
        has_sack: u8::from(found.sack),
        has_timestamp: u8::from(echoed.is_some()),
        has_microseconds: 0,
        reserved: [0; 3],
    };
    // SAFETY: a checked map value of this CPU; no program of ours interrupts another on it.
    unsafe { *request = attributes };
    packet.flow = segment.flow;
    packet.service = Service::Dot;
    let flags = flags::SYN;
    packet.transport =
        Transport::Tcp(packet::Segment { sequence: initial, flags, payload_offset: 0, payload_octets: 0 });
    true
}

/// Whether a SYN of the client would be refused now.
#[inline(always)]
fn is_refused(context: &TcContext) -> bool {
    let (Some(settings), Some(packet)) = (maps::settings(), scratch::packet()) else { return false };
    let verdict = judge_completion(packet, settings, &Kernel::about(context));
    matches!(verdict.action, Action::Drop)
}

/// Gives the listener a request for the packet, and notes where its stream begins.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn dotd_proxy_give(skb: *mut __sk_buff) -> u32 {
    let (Some(request), Some(packet)) = (PROXY_REQUEST.get_ptr_mut(0), scratch::packet()) else { return 0 };
    let given = socket::of(skb.cast(), &packet.flow, |socket| give(skb, socket, request));
    if given == Some(true)
        && let Transport::Tcp(syn) = packet.transport
    {
        let flow = Flow { learned_ns: maps::now_ns(), initial: syn.sequence, offences: 0 };
        maps::remember(&packet.flow, &flow);
        count(PROXY_COMPLETED);
    }
    0
}

/// Whether the listener has a request for the packet now.
#[inline(always)]
fn give(skb: *mut __sk_buff, socket: *mut bpf_sock, request: *mut Attributes) -> bool {
    // SAFETY: the socket is there until it is released; one word of it.
    if unsafe { (*socket).state } != LISTENS {
        return false;
    }
    // SAFETY: a socket of the look-up; the kernel checks its kind.
    let listener: *mut c_void = unsafe { bpf_skc_to_tcp_sock(socket.cast()).cast() };
    if listener.is_null() {
        return false;
    }
    let (octets, given): (u64, u64);
    octets = size_of::<Attributes>() as u64;
    // SAFETY: a call of a kernel function, whose number the loader writes in place of the mark; its four arguments are in the
    // registers of a call, and a call changes the first six registers.
    unsafe {
        asm!(".quad {call}", call = const PROXY_MARK,
            inlateout("r1") skb => _, inlateout("r2") listener => _, inlateout("r3") request => _,
            inlateout("r4") octets => _, lateout("r5") _, lateout("r0") given);
    }
    given == 0
}
