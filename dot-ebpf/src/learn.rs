//! Learns where each connection's stream begins, from dotd's own SYN-ACKs.
//!
//! Before: the local stack accepted a connection. After: the judge can place any segment of it in its stream.
//! Holds: the writing of FLOWS4, FLOWS6 and SYN_TIMES, and the one fact that a SYN-ACK does not contain: how much of the stream
//! came with the SYN.
//! Never: trusts a client. Two SYNs would mislead a map that is filled from SYNs. They would also mislead one that is
//! filled from cookies, because a cookie does not show which SYN it answers.
//!
//! Source: RFC 7413 §4.2 (Fast Open: a SYN-ACK acknowledges the SYN's octets too).

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE, helpers::bpf_tcp_sock, macros::map, maps::Array, programs::TcContext,
};
use dot_common::{
    flow::{Flow, FlowKey},
    frame::Headers,
    packet::parse_syn_ack_into,
    syn_times,
};

use crate::{maps, ports::OwnPorts, scratch, socket};

/// When our stack first answered the SYN of each connection.
#[map]
static SYN_TIMES: Array<u64> = Array::with_max_entries(syn_times::SLOTS, BPF_F_MMAPABLE);

/// The state of a listener: it sent the SYN-ACK itself, and no connection exists yet.
const LISTENS: u32 = 10;

/// Writes down the flow of a SYN-ACK from one of our ports, if the kernel has a request or a connection for it. For any
/// other SYN-ACK the known flow is deleted, because the ACK that follows may belong to any SYN.
#[inline(always)]
pub(crate) fn learn(context: &TcContext, frame: &impl Headers) {
    let Some(room) = scratch::room() else { return };
    let Some((key, accepted)) = parse_syn_ack_into(frame, &OwnPorts, room) else { return };
    if !stands(context) {
        maps::forget_flow(key);
        return;
    }
    let initial = accepted.wrapping_sub(came_with_syn(context, key));
    // Another SYN from the same port, be it forged, begins another stream.
    let is_again = maps::flow(key).is_some_and(|known| known.initial == initial);
    maps::remember(key, &Flow { learned_ns: maps::now_ns(), initial, offences: 0 });
    note_answer(key, is_again);
}

/// Writes down that a connection's SYN is answered now, unless the same SYN was answered before: a SYN-ACK may be
/// retransmitted.
#[inline(always)]
fn note_answer(key: &FlowKey, is_again: bool) {
    let place = syn_times::Place::of(key);
    let Some(word) = SYN_TIMES.get_ptr_mut(place.slot) else { return };
    let now_ns = maps::precise_now_ns();
    // SAFETY: a checked map value, aligned to eight octets; another CPU or a worker may write it meanwhile, as a whole.
    unsafe {
        if !is_again || place.age_ns(word.read_volatile(), now_ns).is_none() {
            word.write_volatile(place.word(now_ns));
        }
    }
}

/// Whether the SYN-ACK belongs to a request or to a connection: a cookie belongs to no socket, nor does a forwarded
/// SYN-ACK.
#[inline(always)]
fn stands(context: &TcContext) -> bool {
    // SAFETY: the context is the one the kernel gave this program; the pointer is read as a whole, and may be null.
    let socket = unsafe { (*context.skb.skb).__bindgen_anon_2.sk };
    // SAFETY: the kernel checked that it is a socket, if it is not null; one word of it.
    !socket.is_null() && unsafe { (*socket).state } != LISTENS
}

/// Octets that the local stack accepted with the SYN (Fast Open), also for a SYN-ACK that is retransmitted.
///
/// Only a Fast Open connection has a socket of its own before its handshake is over, and that socket knows what it
/// received. Other connections have a request, which is no full socket, or a listener, which received nothing.
#[inline(always)]
fn came_with_syn(context: &TcContext, key: &FlowKey) -> u32 {
    let received = socket::of(context.skb.skb.cast(), key, |socket| {
        // SAFETY: the socket is there until it is released.
        let tcp = unsafe { bpf_tcp_sock(socket) };
        // SAFETY: the kernel checked that it is a full TCP socket; one word of it.
        if tcp.is_null() { 0 } else { unsafe { (*tcp).bytes_received } }
    });
    received.unwrap_or(0) as u32
}
