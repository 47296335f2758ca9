//! Whether a packet is for another service, by its first words alone.
//!
//! Before: a packet at tc. After: [`crate::packet`] reads those for which the answer is no.
//! Holds: the shape of most packets: IP, and TCP or UDP directly behind it. Never: says yes of a packet that the parser would
//! attribute to a port of ours.

use crate::{
    frame::Headers,
    packet::{PROTOCOL_TCP, PROTOCOL_UDP, split},
    settings::Services,
    walk::is_tag,
};

/// "More fragments" and the offset of a fragment.
const FRAGMENT: u32 = 0x3fff;

/// Whether it is not IP, or for a port of another service. `false` says nothing: options, extension headers, tags, fragments, or a
/// port of ours.
#[inline(always)]
pub fn is_for_others(frame: &impl Headers, ports: &impl Services) -> bool {
    let Some((ethertype, ip)) = frame.link() else { return false };
    let (protocol, both_ports) = match ethertype {
        0x0800 => match frame.words_at::<6>(ip) {
            Some([first, second, third, _, _, ports]) if first >> 24 == 0x45 && second & FRAGMENT == 0 => {
                (third >> 16 & 0xff, ports)
            }
            _ => return false,
        },
        0x86dd => match frame.words_at::<11>(ip) {
            Some([first, second, .., ports]) if first >> 28 == 6 => (second >> 8 & 0xff, ports),
            _ => return false,
        },
        ethertype => return !is_tag(ethertype),
    };
    matches!(protocol, PROTOCOL_TCP | PROTOCOL_UDP) && ports.service(split(both_ports).1).is_none()
}
