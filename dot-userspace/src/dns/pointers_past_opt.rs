//! What stands behind an OPT record that grows or shrinks: whether it may move along.
//!
//! Before: `query` or `respond` has an OPT record that is not the last one. After: it is edited; or the response passes as
//! it came, and the query, if it needs the edit, is FORMERR.
//! Why: a name may end in a pointer to another one, by its distance from the message's start. What stands before the OPT
//! stays where it is, and pointers lead backwards (RFC 1035 §4.1.4): only those from behind to behind would go astray.
//! Never: follows a pointer, or takes one for none: octets that only look like one count as one.
//!
//! Source: RFC 1035 §4.1.4, RFC 3597 §4: in types that are not listed there no name in RDATA is compressed.

use super::records::{Record, record_at};

/// Whether a record behind `opt` may point to something that is not before it.
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

/// Whether two octets of these are a pointer to `start` or beyond, were there a name.
fn points_to(octets: &[u8], start: usize) -> bool {
    octets.windows(2).any(|pair| match *pair {
        [high @ 0xc0..=0xff, low] => usize::from(u16::from_be_bytes([high & 0x3f, low])) >= start,
        _ => false,
    })
}

/// Types whose RDATA may hold compressed names: those of RFC 1035, those that RFC 3597 §4 has receivers bear with, and
/// A6, DNAME, KX and TKEY, whose first specifications did not forbid it.
fn may_compress(rtype: u16) -> bool {
    matches!(rtype, 2..=9 | 12 | 14 | 15 | 17 | 18 | 21 | 24 | 26 | 30 | 33 | 35 | 36 | 38 | 39 | 249)
}
