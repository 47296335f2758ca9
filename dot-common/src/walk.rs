//! Walks the headers that may stand between Ethernet and a transport header: VLAN tags, IPv6 extension headers.
//!
//! Before: [`crate::packet`] found that a frame has tags or extension headers. After: the place of its transport
//! header, or the reason why it is not known.
//! Holds: how far the walk goes. The kernel's stack goes further: it takes any number of priority tags (VLAN 0) and of
//! extension headers. Never: looks at a port, or at options.
//!
//! Every step writes its place into memory and reads it again ([`Headers::settle`]): the kernel's verifier then knows
//! nothing about the origin of the value, and verifies each step once.
//!
//! Source: IEEE 802.1Q, RFC 8200 §4, RFC 4302 §2.2 (AH counts in 4-octet units), RFC 6946 (atomic fragments), RFC 7112
//! (a first fragment has all headers).

use crate::{
    frame::{Headers, Located},
    packet::{HEADER_OCTETS_V6, end_of, locate_v4, read_v6},
};

/// Most VLAN tags. Eight: two are what networks use; the stack takes any number with VLAN 0.
pub const TAGS_MAX: u32 = 8;
/// Most IPv6 extension headers. Eight: RFC 8200 §4.1 names seven, one of which may come twice.
pub const EXTENSION_HEADERS_MAX: u32 = 8;
/// Shortest extension header.
const EXTENSION_OCTETS_MIN: u32 = 8;

/// The result of a walk. The numbers are those that the kernel half's function returns.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Walked {
    /// Not IP, a later fragment, or a chain that the stack discards.
    Nowhere = 0,
    /// The walk reached what follows the last extension header.
    Located = 1,
    /// There are more extension headers than are walked, or they lie beyond what can be read.
    ChainTooLong = 2,
    /// The first fragment ends within its extension headers.
    ChainCut = 3,
    /// There are more VLAN tags than are walked.
    TooManyTags = 4,
}

impl Walked {
    /// The result that a number stands for.
    #[must_use]
    #[inline(always)]
    pub const fn of(number: u32) -> Self {
        match number {
            1 => Self::Located,
            2 => Self::ChainTooLong,
            3 => Self::ChainCut,
            4 => Self::TooManyTags,
            _ => Self::Nowhere,
        }
    }
}

/// Whether a type is that of a VLAN tag: a customer's or a provider's.
#[inline(always)]
pub(crate) const fn is_tag(ethertype: u16) -> bool {
    ethertype == 0x8100 || ethertype == 0x88a8
}

/// Whether a next header is an extension header that is walked: hop-by-hop options, routing, fragment, authentication,
/// destination options, mobility. The stack refuses those that it does not know.
#[inline(always)]
pub(crate) const fn is_extension(next: u32) -> bool {
    matches!(next, 0 | 43 | FRAGMENT | AUTHENTICATION | 60 | 135)
}

const FRAGMENT: u32 = 44;
const AUTHENTICATION: u32 = 51;

/// Follows a frame's headers. `located` holds the state of the walk and then its result. It has the place of the IP
/// header also if the walk broke off in the chain.
#[inline(always)]
pub fn locate(frame: &impl Headers, located: &mut Located) -> Walked {
    let Some((mut ethertype, first)) = frame.link() else { return Walked::Nowhere };
    *located = Located { transport: first, ..Located::default() };
    for _ in 0..TAGS_MAX {
        if !is_tag(ethertype) {
            break;
        }
        let step = frame.settle(located);
        // A tag's own two octets, then the type of what follows.
        let Some(found) = frame.u16_at(step.transport + 2) else { return Walked::Nowhere };
        ethertype = found;
        step.transport += 4;
    }
    if is_tag(ethertype) {
        return Walked::TooManyTags;
    }
    let located = frame.settle(located);
    let ip = located.transport;
    match ethertype {
        0x0800 => match locate_v4(frame, ip) {
            Some(found) => {
                *located = found;
                Walked::Located
            }
            None => Walked::Nowhere,
        },
        0x86dd => match begin_v6(frame, ip) {
            Some(begun) => {
                *located = begun;
                chain(frame, located)
            }
            None => Walked::Nowhere,
        },
        _ => Walked::Nowhere,
    }
}

/// Reads an IPv6 header; `transport` then is whatever follows it. `None`: not IPv6.
#[inline(always)]
fn begin_v6(frame: &impl Headers, ip: u32) -> Option<Located> {
    let (claimed, next) = read_v6(frame, ip)?;
    // Before hop-by-hop options a length of zero does not end the datagram: the stack takes all octets that follow, as
    // in a jumbogram.
    let end = if claimed == 0 && next == 0 {
        frame.octets()
    } else {
        end_of(frame, ip, claimed, HEADER_OCTETS_V6 + claimed)
    };
    Some(Located { ip, transport: ip + HEADER_OCTETS_V6, end, kind: next | Located::V6, ports: 0 })
}

/// Follows a chain of extension headers from the IPv6 header on.
#[inline(always)]
fn chain(frame: &impl Headers, located: &mut Located) -> Walked {
    for _ in 0..EXTENSION_HEADERS_MAX {
        let step = frame.settle(located);
        if !is_extension(step.protocol()) {
            return end(frame, step);
        }
        if let Err(walked) = pass(frame, step) {
            return walked;
        }
    }
    let located = frame.settle(located);
    if is_extension(located.protocol()) { Walked::ChainTooLong } else { end(frame, located) }
}

/// Whether the upper-layer header begins within a first fragment, and where it can be read.
#[inline(always)]
fn end(frame: &impl Headers, located: &Located) -> Walked {
    /// A shorter header has no ports.
    const UPPER_OCTETS_MIN: u32 = 8;
    if located.is_first_fragment() && located.transport + UPPER_OCTETS_MIN > located.end {
        return Walked::ChainCut;
    }
    let is_there = frame.words_at::<1>(located.transport).is_some();
    if !is_there && frame.reaches(located.transport + UPPER_OCTETS_MIN) {
        return Walked::ChainTooLong;
    }
    Walked::Located
}

/// Goes past one extension header.
#[inline(always)]
fn pass(frame: &impl Headers, step: &mut Located) -> Result<(), Walked> {
    // The octets behind the datagram are padding, and the stack's chain ends there too.
    if step.transport + EXTENSION_OCTETS_MIN > step.end {
        return Err(if step.is_first_fragment() { Walked::ChainCut } else { Walked::Nowhere });
    }
    let Some([word]) = frame.words_at::<1>(step.transport) else {
        // The header is in the frame, but not where headers can be read: in a later buffer, or too far from its start.
        let is_there = frame.reaches(step.transport + EXTENSION_OCTETS_MIN);
        return Err(if is_there { Walked::ChainTooLong } else { Walked::Nowhere });
    };
    let (next, length) = (word >> 24, word >> 16 & 0xff);
    let (octets, fragment) = match step.protocol() {
        // A later fragment carries no port.
        FRAGMENT if word & 0xfff8 != 0 => return Err(Walked::Nowhere),
        // Offset zero and no further fragments: an atomic fragment is a whole datagram.
        FRAGMENT => (EXTENSION_OCTETS_MIN, if word & 1 != 0 { Located::FIRST_FRAGMENT } else { 0 }),
        AUTHENTICATION => ((length + 2) * 4, 0),
        _ => ((length + 1) * 8, 0),
    };
    step.transport += octets;
    step.kind = step.kind & !0xff | next | fragment;
    Ok(())
}
