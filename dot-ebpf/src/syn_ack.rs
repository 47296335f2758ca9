//! Turns a SYN at tc ingress into its SYN-ACK, whose header stays as long.
//!
//! Before: [`crate::proxy`] answers a SYN. After: the packet is the SYN-ACK, in an Ethernet frame back to its sender.
//! Holds: the reading of a packet behind its network header, the checksums, the rewriting. Never: decides whether a SYN is
//! answered.
//!
//! Source: RFC 9293 §3.1, RFC 1071 (checksums), RFC 7323 §2 and §3.

use aya_ebpf::{
    cty::c_void,
    helpers::{bpf_skb_change_head, bpf_skb_load_bytes_relative, bpf_skb_store_bytes},
    programs::TcContext,
};
use dot_common::{
    flow::{FlowKey, Sequence},
    frame::Headers,
    packet::flags,
    syn_proxy::{self, Cookie, NO_SCALE, OWN_SCALE, Options},
};

use crate::{cleartext::fold, context::Frame, cookie::WINDOW};

pub(crate) const PROTOCOL_TCP: u32 = 6;
pub(crate) const ETHERNET_OCTETS: u32 = 14;
const HOPS: u32 = 64;
/// BPF_HDR_START_MAC and BPF_HDR_START_NET.
const FROM_LINK_HEADER: u32 = 0;
const FROM_NETWORK_HEADER: u32 = 1;

/// A TCP segment behind a plain IP header. `tcp` counts from the Ethernet header on.
pub(crate) struct Segment {
    pub(crate) flow: FlowKey,
    pub(crate) tcp: u32,
    pub(crate) sequence: Sequence,
    pub(crate) acknowledgment: Sequence,
    /// Header length, flags, window.
    pub(crate) control: u32,
    /// Octets from the TCP header on.
    pub(crate) octets: u32,
}

/// Words from an offset behind the network header on, wherever the packet's first octet is.
#[inline(always)]
pub(crate) fn copy<const WORDS: usize>(context: &TcContext, offset: u32) -> Option<[u32; WORDS]> {
    let mut words = [0u32; WORDS];
    let (skb, to) = (context.skb.skb.cast(), (&raw mut words).cast());
    // SAFETY: the context is the one the kernel gave this program; there is room for that many words.
    let failed =
        unsafe { bpf_skb_load_bytes_relative(skb, offset, to, WORDS as u32 * 4, FROM_NETWORK_HEADER) };
    if failed == 0 { Some(words.map(u32::from_be)) } else { None }
}

/// Makes sure that the packet's first octet is that of its Ethernet header.
///
/// Generic XDP copies a packet that it must not write to, and the copy has no length of a link header (Linux 6.18,
/// skb_pp_cow_data): this hook then sees the packet from its network header on. The Ethernet header is still before it.
#[inline(always)]
pub(crate) fn begin_with_link(context: &TcContext) -> Option<()> {
    let (seen, network) = (Frame(context).words_at::<4>(0)?, copy::<4>(context, 0)?);
    // The frame is for this machine alone: the first octet of such an address is even, and that of IPv4 is 0x45.
    if seen != network {
        return Some(());
    }
    let mut link = [0u16; ETHERNET_OCTETS as usize / 2];
    let (skb, place) = (context.skb.skb, (&raw mut link).cast::<c_void>());
    // SAFETY: the context is the one the kernel gave this program; `link` has 14 octets.
    let failed = unsafe {
        bpf_skb_load_bytes_relative(skb.cast(), 0, place, ETHERNET_OCTETS, FROM_LINK_HEADER) != 0
            || bpf_skb_change_head(skb, ETHERNET_OCTETS, 0) != 0
            || bpf_skb_store_bytes(skb.cast(), 0, place, ETHERNET_OCTETS, 0) != 0
    };
    if failed { None } else { Some(()) }
}

/// The sum of the pseudo header of either direction.
#[inline(always)]
fn pseudo(segment: &Segment, sum: u32) -> u32 {
    let ([a, b, c, d], [e, f, g, h]) = (segment.flow.client_words(), segment.flow.server_words());
    let mut sum = sum + PROTOCOL_TCP + segment.octets;
    for word in [a, b, c, d, e, f, g, h] {
        sum += (word >> 16) + (word & 0xffff);
    }
    sum
}

/// Whether the kernel or a card will complete the frame's checksum (a virtual interface: the field has the pseudo header's sum).
/// `None`: the checksum is wrong.
#[inline(always)]
pub(crate) fn sum_of(frame: &Frame<'_, TcContext>, segment: &Segment, options: [u32; 6]) -> Option<bool> {
    let [ports, sequence, acknowledgment, control, checksum] = frame.words_at::<5>(segment.tcp)?;
    let mut sum = pseudo(segment, 0);
    if checksum >> 16 == u32::from(!fold(sum)) {
        return Some(true);
    }
    for word in [ports, sequence, acknowledgment, control, checksum] {
        sum += (word >> 16) + (word & 0xffff);
    }
    for word in options {
        sum += (word >> 16) + (word & 0xffff);
    }
    if fold(sum) == 0 { Some(false) } else { None }
}

/// Writes the SYN-ACK over the SYN; its header stays as long.
#[inline(always)]
pub(crate) fn rewrite(
    frame: &Frame<'_, TcContext>,
    segment: &Segment,
    count_of_options: u32,
    offer: &Options,
    cookie: &Cookie,
    is_partial: bool,
) -> Option<()> {
    const NOTHING: u32 = 0x0101_0101;
    let Segment { flow, tcp, .. } = segment;
    let most = if flow.is_v6() { 1440 } else { 1460 };
    let mut options = [0x0204_0000 | most, NOTHING, NOTHING, 0, 0, 0];
    if let Some(timestamp) = offer.timestamp {
        options[1] = if offer.sack { 0x0402_080a } else { 0x0101_080a };
        options[2] = cookie.timestamp;
        options[3] = timestamp;
        options[4] = if offer.scale == NO_SCALE { NOTHING } else { 0x0103_0300 | OWN_SCALE };
    }
    let ports = flow.ports.rotate_left(16);
    let acknowledgment = segment.sequence.wrapping_add(1);
    let control = (syn_proxy::HEADER_WORDS + count_of_options) << 28
        | u32::from(flags::SYN | flags::ACK) << 16
        | WINDOW;
    let pseudo = pseudo(segment, 0);
    let mut sum = pseudo;
    for word in [ports, cookie.sequence, acknowledgment, control] {
        sum += (word >> 16) + (word & 0xffff);
    }
    frame.put_word(*tcp, ports)?;
    frame.put_word(tcp + 4, cookie.sequence)?;
    frame.put_word(tcp + 8, acknowledgment)?;
    frame.put_word(tcp + 12, control)?;
    let mut index = 0;
    while index < 6 {
        if index < count_of_options {
            let word = options[index as usize];
            sum += (word >> 16) + (word & 0xffff);
            frame.put_word(tcp + 20 + index * 4, word)?;
        }
        index += 1;
    }
    let checksum = if is_partial { !fold(pseudo) } else { fold(sum) };
    frame.put_word(tcp + 16, u32::from(checksum) << 16)?;
    write_ip(frame, segment)?;
    let [a, b, c] = frame.words_at::<3>(0)?;
    frame.put_word(0, b << 16 | c >> 16)?;
    frame.put_word(4, c << 16 | a >> 16)?;
    frame.put_word(8, a << 16 | b >> 16)
}

/// The IP header of the way back, as long as the SYN's.
#[inline(always)]
fn write_ip(frame: &Frame<'_, TcContext>, segment: &Segment) -> Option<()> {
    const DONT_FRAGMENT: u32 = 0x4000;
    let (mut at, client, server) =
        (ETHERNET_OCTETS, segment.flow.client_words(), segment.flow.server_words());
    if segment.flow.is_v6() {
        frame.put_word(at, 6 << 28)?;
        frame.put_word(at + 4, segment.octets << 16 | PROTOCOL_TCP << 8 | HOPS)?;
        at += 8;
        let ([a, b, c, d], [e, f, g, h]) = (server, client);
        for word in [a, b, c, d, e, f, g, h] {
            frame.put_word(at, word)?;
            at += 4;
        }
        return Some(());
    }
    let ([source, ..], [destination, ..]) = (server, client);
    let (first, third) = (0x4500_0000 | (20 + segment.octets), HOPS << 24 | PROTOCOL_TCP << 16);
    let mut sum = 0;
    for word in [first, DONT_FRAGMENT, third, source, destination] {
        sum += (word >> 16) + (word & 0xffff);
    }
    frame.put_word(at, first)?;
    frame.put_word(at + 4, DONT_FRAGMENT)?;
    frame.put_word(at + 8, third | u32::from(fold(sum)))?;
    frame.put_word(at + 12, source)?;
    frame.put_word(at + 16, destination)
}
