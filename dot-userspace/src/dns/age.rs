//! Counts the TTLs of a kept response down, and says when it is stale. In place: nothing is encoded anew.
//!
//! Before: `cache` copied a response for a client. After: it is one that a client may get.
//! Never: lets a TTL wrap, or touches an octet that is no TTL.
//!
//! Source: RFC 2181 §8, RFC 8767 §4 and §5.2, RFC 8914 §4.4.

use super::{
    Ede,
    edns::write_ede,
    forward::write_at,
    records::{Counts, u16_at, walk_tail},
};

/// TTL of every record in a stale response (RFC 8767 §5.2).
pub const STALE_TTL_SECONDS: u32 = 30;

/// Takes `seconds` from each TTL of `message`; `ttls` are the pairs of octets that hold their offsets.
pub fn count_down(message: &mut [u8], ttls: &[u8], seconds: u32) {
    if seconds > 0 {
        each_ttl(message, ttls, |ttl| ttl.saturating_sub(seconds));
    }
}

/// Makes `message`, whose question ends at `question_end`, a stale one: its TTLs are
/// [`STALE_TTL_SECONDS`], and its OPT, where it stands last, says why.
pub fn make_stale(message: &mut Vec<u8>, ttls: &[u8], question_end: usize) {
    each_ttl(message, ttls, |_| STALE_TTL_SECONDS);
    let tail = Counts::read(message).and_then(|counts| walk_tail(message, question_end, counts).ok());
    let Some(opt) = tail.and_then(|tail| tail.opt).filter(|opt| opt.end == message.len()) else { return };
    write_ede(message, Ede::STALE);
    let octets = u16::try_from(message.len() - opt.rdata).unwrap_or_default();
    write_at(message, opt.rdata - 2, octets);
}

fn each_ttl(message: &mut [u8], ttls: &[u8], change: impl Fn(u32) -> u32) {
    for offset in ttls.chunks_exact(2).filter_map(|pair| u16_at(pair, 0)).map(usize::from) {
        if let Some(octets) =
            message.get_mut(offset..offset + 4).and_then(|octets| octets.first_chunk_mut::<4>())
        {
            *octets = change(u32::from_be_bytes(*octets)).to_be_bytes();
        }
    }
}
