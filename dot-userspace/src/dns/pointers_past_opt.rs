//! Whether the octets behind an OPT record may move when that grows or shrinks.
//!
//! Before: `query` or `respond` has an OPT record that is not the last one. After: it is edited; or the response passes
//! unchanged, and a query that needs the edit is FORMERR.
//! Why: a name may end in a pointer to another one, by its offset in the message. Octets before the OPT do not move,
//! and pointers lead backwards (RFC 1035 §4.1.4): only pointers from behind the OPT to behind it would become wrong.
//! Never: follows a pointer, or overlooks one: octets that only look like a pointer count as one.
//!
//! Source: RFC 1035 §4.1.4, RFC 3597 §4: in types that are not listed there, names in RDATA are not compressed.

use super::records::{Record, record_at};

/// Whether a record behind `opt` may contain a pointer to behind it.
pub(super) fn is_entangled(message: &[u8], opt: Record) -> bool {
    let mut start = opt.end;
    while start < message.len() {
        let Some(record) = record_at(message, start) else { return true };
        let rdata = if may_compress(record.rtype) { record.rdata..record.end } else { 0..0 };
        let places = [record.start..record.fixed, rdata];
        if places
            .into_iter()
            .any(|place| message.get(place).is_none_or(|octets| points_to(octets, opt.start)))
        {
            return true;
        }
        start = record.end;
    }
    false
}

/// Whether two of these octets would be a pointer to `start` or beyond, if a name ended there.
fn points_to(octets: &[u8], start: usize) -> bool {
    octets.windows(2).any(|pair| match *pair {
        [high @ 0xc0..=0xff, low] => usize::from(u16::from_be_bytes([high & 0x3f, low])) >= start,
        _ => false,
    })
}

/// Types whose RDATA may hold compressed names: those of RFC 1035, those that receivers must tolerate by RFC 3597 §4,
/// and A6, DNAME, KX and TKEY, whose first specifications did not forbid it.
fn may_compress(rtype: u16) -> bool {
    matches!(rtype, 2..=9 | 12 | 14 | 15 | 17 | 18 | 21 | 24 | 26 | 30 | 33 | 35 | 36 | 38 | 39 | 249)
}
