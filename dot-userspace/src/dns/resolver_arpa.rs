//! Whether a question is about `resolver.arpa`, the domain of RFC 9462 that describes the resolver which is asked.
//!
//! Before: `query` found where the question ends. After: `triage` answers NODATA, so no backend gets the query.
//! Never: allocates; follows a pointer (a question has none); looks at labels of names with another ending.
//!
//! Source: RFC 9462 §6.1 and §8.2: another server's record must not reach dotd's clients as if it described dotd: a
//! client would ask that server from then on.

/// The domain as it stands at the end of a name.
const DOMAIN: &[u8] = b"\x08resolver\x04arpa\x00";
/// QTYPE and QCLASS, behind the name.
const TYPE_AND_CLASS_OCTETS: usize = 4;

/// Whether the name of the question that ends at `question_end` is `resolver.arpa` or below it.
pub(super) fn is_asked(message: &[u8], question_end: usize) -> bool {
    let name = question_end
        .checked_sub(TYPE_AND_CLASS_OCTETS)
        .and_then(|end| message.get(super::HEADER_OCTETS..end))
        .unwrap_or_default();
    let Some(before) = name.len().checked_sub(DOMAIN.len()) else { return false };
    name.get(before..).is_some_and(|end| end.eq_ignore_ascii_case(DOMAIN)) && is_boundary(name, before)
}

/// Whether a label begins at `place`: the octets of the domain may also occur within a label.
fn is_boundary(name: &[u8], place: usize) -> bool {
    let mut at = 0;
    while at < place {
        match name.get(at) {
            Some(length @ 1..) => at += 1 + usize::from(*length),
            _ => return false,
        }
    }
    at == place
}

#[cfg(test)]
mod tests {
    use super::{super::wire_name, *};

    fn asks(name: &[u8]) -> bool {
        let message = [&[0; 12][..], name, &[0, 64, 0, 1]].concat();
        is_asked(&message, message.len())
    }

    /// Goal: the domain and names below it match, in any case, and similar names do not. Method: similar names, and the
    /// domain's octets within one label. Covers: C-360
    #[test]
    fn knows_the_domain() {
        for name in ["resolver.arpa", "_dns.resolver.arpa", "a.b.RESOLVER.Arpa"] {
            assert!(asks(&wire_name(name).unwrap()), "{name}");
        }
        for name in
            [".", "arpa", "xresolver.arpa", "resolver.arpa.example", "resolver.in-addr.arpa", "ipv4only.arpa"]
        {
            assert!(!asks(&wire_name(name).unwrap()), "{name}");
        }
        let within = [&[17, b'x', b'y'][..], &DOMAIN[..DOMAIN.len() - 1], &[b'z', 0]].concat();
        assert!(!asks(&within));
        let label_end = [&[15, b'x'][..], DOMAIN].concat();
        assert!(!asks(&label_end), "the domain's octets are the end of a label");
        assert!(!is_asked(&[0; 12], 12) && !is_asked(&[], 0));
    }
}
