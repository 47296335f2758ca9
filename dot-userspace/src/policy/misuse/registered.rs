//! Splits a name at its registered domain: the owner of the domain alone chooses the labels in front of it.
//!
//! Before: the name in a query. After: the domain for which it counts.
//! Holds: the public suffix list, as it was when this was built.
//! Never: allocates; splits names below `arpa`, which are addresses and telephone numbers.
//!
//! Source: publicsuffix.org.

use psl::Psl as _;

use crate::dns::Labels;

/// The parts of a name, in wire format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Split<'n> {
    /// The labels in front of the domain.
    pub(super) labels: &'n [u8],
    /// The registered domain.
    pub(super) domain: &'n [u8],
}

/// Splits a name. `None`: it has no registered domain, because it is a public suffix itself, or below `arpa`.
pub(super) fn split(name: &Labels) -> Option<Split<'_>> {
    let text = name.labels().map(|label| label.get(1..).unwrap_or_default());
    let suffix_octets = psl::List.find(text).len;
    let mut labels = name.labels();
    let (mut in_text, mut in_wire) = (0, 1);
    while in_text < suffix_octets {
        let label = labels.next()?;
        if in_text == 0 && label == b"\x04arpa" {
            return None;
        }
        // As text a label has a dot where the wire has its length, except for the last one.
        in_text += label.len() - usize::from(in_text == 0);
        in_wire += label.len();
    }
    in_wire += labels.next()?.len();
    let octets = name.octets();
    let (labels, domain) = octets.split_at_checked(octets.len().checked_sub(in_wire)?)?;
    Some(Split { labels, domain })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: names are split where the list says, also private suffixes, and under a top-level domain that it does not know.
    ///
    #[test]
    fn names_are_split_where_somebody_registered() {
        for (name, labels, domain) in [
            ("www.example.com.", "www", "example.com"),
            ("example.com.", ".", "example.com"),
            ("a.b.Example.co.uk.", "a.b", "example.co.uk"),
            ("x.y.github.io.", "x", "y.github.io"),
            ("a.b.dotd.test.", "a.b", "dotd.test"),
        ] {
            let name = Labels::parse(name.as_bytes(), None).unwrap();
            let found = split(&name).unwrap();
            let text = |wire: &[u8]| crate::dns::text_of(&[wire, &[0]].concat());
            assert_eq!(
                (text(found.labels).as_str(), crate::dns::text_of(found.domain).as_str()),
                (labels, domain)
            );
        }
        for name in [".", "com.", "co.uk.", "test.", "1.2.0.192.in-addr.arpa.", "1.0.ip6.arpa."] {
            assert_eq!(split(&Labels::parse(name.as_bytes(), None).unwrap()), None, "{name}");
        }
    }
}
