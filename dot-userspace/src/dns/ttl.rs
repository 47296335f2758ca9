//! Counts down the TTLs of a cached response, and marks a stale one. In place: nothing is encoded again.
//!
//! Before: `cache` copied a response for a client. After: the copy may be sent.
//! Never: lets a TTL wrap, or changes an octet that is not part of a TTL.
//!
//! Source: RFC 2181 §8, RFC 8767 §4 and §5.2, RFC 8914 §4.4 and §4.20.

use super::{
    Ede, ResponseCode,
    edns::{take_in, write_ede},
    pointers_past_opt::is_entangled,
    rcode_of,
    records::{Counts, u16_at, walk_tail, write_at},
    respond::EMPTY_OPT,
};

/// TTL of every record in a stale response (RFC 8767 §5.2).
pub const STALE_TTL_SECONDS: u32 = 30;

/// Takes `seconds` from each TTL of `message`; `ttls` are the pairs of octets that hold their offsets.
pub fn count_down(message: &mut [u8], ttls: &[u8], seconds: u32) {
    if seconds > 0 {
        each_ttl(message, ttls, |ttl| ttl.saturating_sub(seconds));
    }
}

/// Makes `message`, whose question ends at `question_end`, a stale response: its TTLs are [`STALE_TTL_SECONDS`], and
/// its OPT says why. If it has no OPT, it gets one, which a client without EDNS does not see.
pub fn make_stale(message: &mut Vec<u8>, ttls: &[u8], question_end: usize) {
    each_ttl(message, ttls, |_| STALE_TTL_SECONDS);
    let is_nxdomain = rcode_of(message) == ResponseCode::NXDomain;
    let ede = if is_nxdomain { Ede::STALE_NXDOMAIN } else { Ede::STALE };
    let Some(counts) = Counts::read(message) else { return };
    let Ok(tail) = walk_tail(message, question_end, counts) else { return };
    let rdata = match tail.opt {
        // Records behind it point to each other, and must not move.
        Some(opt) if is_entangled(message, opt) => return,
        Some(opt) => opt.rdata,
        None if tail.end != message.len() => return,
        None => {
            write_at(message, ADDITIONAL_COUNT, counts.additional.saturating_add(1));
            message.extend_from_slice(&EMPTY_OPT);
            message.len()
        }
    };
    let before = message.len();
    write_ede(message, ede);
    let octets = message.len() - before;
    take_in(message, rdata, octets);
}

/// Offset of ARCOUNT.
const ADDITIONAL_COUNT: usize = 10;

fn each_ttl(message: &mut [u8], ttls: &[u8], change: impl Fn(u32) -> u32) {
    for offset in ttls.chunks_exact(2).filter_map(|pair| u16_at(pair, 0)).map(usize::from) {
        if let Some(octets) =
            message.get_mut(offset..offset + 4).and_then(|octets| octets.first_chunk_mut::<4>())
        {
            *octets = change(u32::from_be_bytes(*octets)).to_be_bytes();
        }
    }
}
