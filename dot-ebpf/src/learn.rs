//! Learns where each connection's stream begins, from our own SYN-ACKs.
//!
//! Before: our stack accepted a connection. After: the judge can place any segment of it in its stream.
//! Holds: the writing of FLOWS4 and FLOWS6, and what a SYN-ACK does not say: how much of the stream came with the SYN.
//! Never: believes a client: a map fed by SYNs is fooled by two of them, and so is one fed by SYN-ACKs that are cookies, for
//! which nobody remembers the SYN that they answer.
//!
//! Source: RFC 7413 §4.2 (Fast Open: a SYN-ACK acknowledges the SYN's octets too).

use aya_ebpf::{helpers::bpf_tcp_sock, programs::TcContext};
use dot_common::{
    flow::{Flow, FlowKey},
    frame::Headers,
    packet::parse_syn_ack_into,
};

use crate::{maps, ports::OwnPorts, socket};

/// A listener's state: it sent the SYN-ACK itself, and nothing stands yet.
const LISTENS: u32 = 10;

/// Writes down the flow of a SYN-ACK from one of our ports, if a request or a connection stands behind it; of another one
/// what was known before is forgotten, because the ACK that comes may belong to any SYN.
#[inline(always)]
pub(crate) fn learn(context: &TcContext, frame: &impl Headers) {
    let Some(room) = maps::room() else { return };
    let Some((key, accepted)) = parse_syn_ack_into(frame, &OwnPorts, room) else { return };
    if !stands(context) {
        maps::forget_flow(key);
        return;
    }
    let initial = accepted.wrapping_sub(came_with_syn(context, key));
    maps::remember(key, &Flow { learned_ns: maps::now_ns(), initial, offences: 0 });
}

/// Whether the SYN-ACK belongs to a request or to a connection: a cookie belongs to no socket, nor does what is forwarded.
#[inline(always)]
fn stands(context: &TcContext) -> bool {
    // SAFETY: the context is the one the kernel gave this program; it gives the pointer, or none, as a whole.
    let socket = unsafe { (*context.skb.skb).__bindgen_anon_2.sk };
    // SAFETY: the kernel checked that it is a socket, if it is not null; one word of it.
    !socket.is_null() && unsafe { (*socket).state } != LISTENS
}

/// Octets that our stack took with the SYN (Fast Open), also when the SYN-ACK is one that is sent again.
///
/// Only such a connection has a socket of its own before its handshake is over, which then says what it received; of others
/// there is a request, which is no full socket, or a listener, which received nothing.
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
