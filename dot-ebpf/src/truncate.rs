//! Turns a query by UDP into its own answer, TC=1, and sends it back.
//!
//! Before: the judge found it over its client's rate, and planned the cut. After: the client asks over TCP, and so
//! proves its address; a victim of spoofing gets no more octets than were sent in its name.
//! Holds: the rewriting of Ethernet, IP, UDP and DNS headers, with whole checksums.
//! Never: grows a frame; trusts the checksum that came, because a veth delivers partial ones.
//!
//! Source: RFC 1035 §4.1.1 (header), RFC 6840 §5.7 and §5.9 (CD copied, AD clear), RFC 6891 §6.1 (OPT), RFC 768 and
//! RFC 8200 §8.1 (checksum).

use aya_ebpf::{bindings::xdp_action, programs::XdpContext};
use dot_common::{
    frame::Headers,
    packet::Packet,
    truncation::{HEADER_OCTETS, Truncation},
};

use crate::{
    cleartext::fold,
    context::{Frame, Linear},
    maps,
};

const UDP_HEADER_OCTETS: u32 = 8;
const PROTOCOL_UDP: u32 = 17;
const HOPS: u32 = 64;
/// Shortest frame of Ethernet, without its checksum.
const FRAME_OCTETS_MIN: u32 = 60;
/// The payload size that dotd accepts over UDP: the size that DNS Flag Day 2020 settled on.
const UDP_PAYLOAD_OCTETS: u16 = 1232;

/// Rewrites the frame in place and sends it back; a frame that cannot be rewritten is dropped.
#[inline(always)]
pub(crate) fn answer(context: &XdpContext, packet: &Packet, truncation: &Truncation) -> u32 {
    match rewrite(context, packet, truncation) {
        Some(()) => xdp_action::XDP_TX,
        None => xdp_action::XDP_DROP,
    }
}

#[inline(always)]
fn rewrite(context: &XdpContext, packet: &Packet, truncation: &Truncation) -> Option<()> {
    let frame = Frame(context);
    let udp = packet.located.transport;
    let octets = UDP_HEADER_OCTETS + truncation.message_octets();
    write_message(&frame, udp + UDP_HEADER_OCTETS, truncation)?;
    // Ports change places; the checksum is zero while it is made.
    frame.put_word(udp, packet.flow.ports.rotate_left(16))?;
    frame.put_word(udp + 4, octets << 16)?;
    let checksum = maps::checksum(context, udp, octets, pseudo_header(packet, octets))?;
    frame.put_u16(udp + 6, u16::from_be(checksum))?;
    if packet.located.is_v6() {
        write_v6(&frame, packet, octets)?;
    } else {
        write_v4(&frame, packet, octets)?;
    }
    frame.turn_round()?;
    let end = udp + octets;
    let kept = if end < FRAME_OCTETS_MIN { FRAME_OCTETS_MIN } else { end };
    frame.shorten(context.octets().saturating_sub(kept))
}

/// Writes the header, and the OPT behind the question. The question stays in place.
#[inline(always)]
fn write_message(frame: &Frame<'_, XdpContext>, message: u32, truncation: &Truncation) -> Option<()> {
    const QR_AND_TC: u32 = 0x8200;
    /// RD and CD are the client's; AA, RA, Z, AD and RCODE are zero.
    const COPIED: u32 = 0x0110;
    const DNSSEC_OK: u16 = 0x8000;
    let [id_and_flags] = frame.words_at::<1>(message)?;
    frame.put_word(message, id_and_flags & (0xffff_0000 | COPIED) | QR_AND_TC)?;
    frame.put_word(message + 4, 1 << 16)?;
    frame.put_word(message + 8, u32::from(truncation.has_opt))?;
    if truncation.has_opt {
        // These follow the root name and the type: payload size, extended RCODE and version, flags, no options.
        let opt = message + HEADER_OCTETS + truncation.question_octets + 3;
        let flags = frame.u16_at(opt + 4)?;
        frame.put_u16(opt, UDP_PAYLOAD_OCTETS)?;
        frame.put_u16(opt + 2, 0)?;
        frame.put_u16(opt + 4, flags & DNSSEC_OK)?;
        frame.put_u16(opt + 6, 0)?;
    }
    Some(())
}

/// Writes length, hop limit, addresses and checksum of an IPv4 header without options.
#[inline(always)]
fn write_v4(frame: &Frame<'_, XdpContext>, packet: &Packet, octets: u32) -> Option<()> {
    let ip = packet.located.ip;
    let [first, second] = frame.words_at::<2>(ip)?;
    let first = first & 0xffff_0000 | (20 + octets);
    let third = HOPS << 24 | PROTOCOL_UDP << 16;
    let ([source, ..], [destination, ..]) = (packet.flow.server_words(), packet.flow.client_words());
    let mut sum = 0;
    for word in [first, second, third, source, destination] {
        sum += (word >> 16) + (word & 0xffff);
    }
    frame.put_word(ip, first)?;
    frame.put_word(ip + 8, third | u32::from(fold(sum)))?;
    frame.put_word(ip + 12, source)?;
    frame.put_word(ip + 16, destination)
}

/// Writes length, hop limit and addresses of an IPv6 header; no traffic class, no flow label.
#[inline(always)]
fn write_v6(frame: &Frame<'_, XdpContext>, packet: &Packet, octets: u32) -> Option<()> {
    let ip = packet.located.ip;
    frame.put_word(ip, 6 << 28)?;
    frame.put_word(ip + 4, octets << 16 | PROTOCOL_UDP << 8 | HOPS)?;
    let (mut at, [a, b, c, d], [e, f, g, h]) =
        (ip + 8, packet.flow.server_words(), packet.flow.client_words());
    for word in [a, b, c, d, e, f, g, h] {
        frame.put_word(at, word)?;
        at += 4;
    }
    Some(())
}

/// The sum over addresses, protocol and length, in the order of octets in which the helper sums.
#[inline(always)]
fn pseudo_header(packet: &Packet, octets: u32) -> u32 {
    let ([a, b, c, d], [e, f, g, h]) = (packet.flow.server_words(), packet.flow.client_words());
    let mut sum = 0u64;
    for word in [a, b, c, d, e, f, g, h, PROTOCOL_UDP, octets] {
        sum += u64::from(word.to_be());
    }
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    ((sum & 0xffff_ffff) + (sum >> 32)) as u32
}
