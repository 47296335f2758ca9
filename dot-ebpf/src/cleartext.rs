//! Turns a refused segment into the end of its connection, on both sides.
//!
//! Before: the judge refused it, and its gate says `reset`. After: the local stack gets a segment without octets in its
//! place, and acts on it.
//! Holds: the rewriting, with both checksums.
//! Never: sends a frame back (XDP_TX): a native veth loses it unless its peer runs XDP too.
//!
//! The first refused segment becomes a RST, which frees the local socket. Each further one becomes an ACK for a
//! connection that does not exist any more, and the local stack resets the client.
//!
//! Source: RFC 9293 §3.5.2 and §3.10.7, RFC 1071 and RFC 1624 (checksums).

use aya_ebpf::{bindings::xdp_action, programs::XdpContext};
use dot_common::{
    frame::Headers,
    packet::{Packet, Transport, flags},
};

use crate::{
    context::{Frame, Linear},
    maps,
};

const TCP_HEADER_OCTETS: u32 = 20;
const PROTOCOL_TCP: u32 = 6;

/// Rewrites the segment in place; a segment that cannot be rewritten is dropped.
#[inline(always)]
pub(crate) fn reset(context: &XdpContext, packet: &Packet) -> u32 {
    let Transport::Tcp(segment) = packet.transport else { return xdp_action::XDP_DROP };
    // Octets in a SYN: there is no connection to end, and a listener ignores a RST.
    if segment.has(flags::SYN) {
        return xdp_action::XDP_DROP;
    }
    let is_first = maps::offend(&packet.flow) == 0;
    match rewrite(context, packet, is_first) {
        Some(()) => xdp_action::XDP_PASS,
        None => xdp_action::XDP_DROP,
    }
}

#[inline(always)]
fn rewrite(context: &XdpContext, packet: &Packet, is_first: bool) -> Option<()> {
    let located = &packet.located;
    let surplus = context.octets().checked_sub(located.transport + TCP_HEADER_OCTETS)?;
    let frame = Frame(context);
    frame.shorten(surplus)?;
    let ip_octets = located.transport - located.ip + TCP_HEADER_OCTETS;
    if located.is_v6() {
        const HEADER_OCTETS: u32 = 40;
        frame.put_u16(located.ip + 4, (ip_octets - HEADER_OCTETS) as u16)?;
    } else {
        let [first] = frame.words_at::<1>(located.ip)?;
        let checksum = frame.u16_at(located.ip + 10)?;
        // RFC 1624: HC' = ~(~HC + ~m + m').
        let sum = u32::from(!checksum) + (!first & 0xffff) + ip_octets;
        frame.put_u16(located.ip + 2, ip_octets as u16)?;
        frame.put_u16(located.ip + 10, fold(sum))?;
    }
    let tcp = located.transport;
    let [ports, sequence, acknowledgment, control] = frame.words_at::<4>(tcp)?;
    let (acknowledgment, flag) = if is_first { (0, flags::RST) } else { (acknowledgment, flags::ACK) };
    // A header of five words, only this flag, the window unchanged.
    let control = 5 << 28 | u32::from(flag) << 16 | control & 0xffff;
    let mut sum = PROTOCOL_TCP + TCP_HEADER_OCTETS;
    let flow = &packet.flow;
    let [a, b, c, d] = flow.client_words();
    let [e, f, g, h] = flow.server_words();
    for word in [a, b, c, d, e, f, g, h, ports, sequence, acknowledgment, control] {
        sum += (word >> 16) + (word & 0xffff);
    }
    frame.put_word(tcp + 8, acknowledgment)?;
    frame.put_word(tcp + 12, control)?;
    // Checksum, and no urgent pointer.
    frame.put_word(tcp + 16, u32::from(fold(sum)) << 16)
}

/// The one's complement checksum of a sum of 16-bit words.
#[inline(always)]
pub(crate) fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}
