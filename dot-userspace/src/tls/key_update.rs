//! KeyUpdate, the only handshake message that a client may send after its handshake, in one record or several.
//!
//! Before: a record with handshake content was opened. After: a whole KeyUpdate, or the alert for an invalid message.
//! Holds: at most four octets of an incomplete KeyUpdate. Never: holds another message.
//!
//! Source: RFC 8446 §4.6.3, §5.1.

use super::alert::{DECODE_ERROR, ILLEGAL_PARAMETER, UNEXPECTED_MESSAGE};

/// A KeyUpdate without its last octet: its type, and its length of one octet.
pub const FRONT: [u8; 4] = [24, 0, 0, 1];
/// The last octet of one that requests none in return.
pub const NOT_REQUESTED: u8 = 0;
/// The last octet of one that requests one in return.
const REQUESTED: u8 = 1;

/// The beginning of a KeyUpdate whose rest has not come.
#[derive(Debug, Default)]
pub struct Partial {
    octets: u8,
}

impl Partial {
    /// Whether the next record must continue it (RFC 8446 §5.1).
    pub fn is_begun(&self) -> bool {
        self.octets > 0
    }

    /// How many octets of it have come.
    #[must_use]
    pub fn octets(&self) -> u8 {
        self.octets
    }

    /// A KeyUpdate of which this many octets have come. `None`: it would be complete.
    #[must_use]
    pub fn of(octets: u8) -> Option<Self> {
        (usize::from(octets) <= FRONT.len()).then_some(Self { octets })
    }

    /// Takes the content of one record. `Some`: a KeyUpdate is complete; the value says whether it requests one in
    /// return.
    ///
    /// # Errors
    /// The alert for this content.
    pub fn take(&mut self, content: &[u8]) -> Result<Option<bool>, u8> {
        if content.is_empty() {
            // RFC 8446 §5.4.
            return Err(UNEXPECTED_MESSAGE);
        }
        let mut rest = content;
        let begun = usize::from(self.octets);
        for (place, expected) in FRONT.iter().enumerate().skip(begun) {
            let Some((octet, behind)) = rest.split_first() else { return Ok(None) };
            if octet != expected {
                return Err(if place == 0 { UNEXPECTED_MESSAGE } else { DECODE_ERROR });
            }
            (rest, self.octets) = (behind, self.octets + 1);
        }
        match rest {
            [] => Ok(None),
            [asked] => {
                self.octets = 0;
                match *asked {
                    NOT_REQUESTED => Ok(Some(false)),
                    REQUESTED => Ok(Some(true)),
                    _ => Err(ILLEGAL_PARAMETER),
                }
            }
            // The next message uses another key, so it cannot be in this record.
            _ => Err(UNEXPECTED_MESSAGE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a KeyUpdate is recognised however it is divided into records; nothing may follow it in its record; an
    /// invalid value, length or type gets the alert that RFC 8446 names. Covers: C-262, C-263, C-264, C-265
    #[test]
    fn a_key_update_is_one_however_it_is_cut() {
        for cut in 1..5 {
            let whole = [24, 0, 0, 1, 1];
            let mut partial = Partial::default();
            assert_eq!((partial.take(&whole[..cut]), partial.is_begun()), (Ok(None), true), "{cut}");
            assert_eq!((partial.take(&whole[cut..]), partial.is_begun()), (Ok(Some(true)), false), "{cut}");
        }
        let mut partial = Partial::default();
        let octets = [24, 0, 0, 1, 0].map(|octet| partial.take(&[octet]));
        assert_eq!(octets, [Ok(None), Ok(None), Ok(None), Ok(None), Ok(Some(false))]);
        let cases: [(&[u8], u8); 8] = [
            (&[24, 0, 0, 1, 2], ILLEGAL_PARAMETER),
            (&[24, 0, 0, 1, 255], ILLEGAL_PARAMETER),
            (&[24, 0, 0, 1, 0, 24, 0, 0, 1, 0], UNEXPECTED_MESSAGE),
            (&[24, 0, 0, 1, 0, 0], UNEXPECTED_MESSAGE),
            (&[24, 0, 0, 0], DECODE_ERROR),
            (&[24, 0, 0, 2, 0, 0], DECODE_ERROR),
            (&[11, 0, 0, 0], UNEXPECTED_MESSAGE),
            (&[], UNEXPECTED_MESSAGE),
        ];
        for (content, alert) in cases {
            assert_eq!(Partial::default().take(content), Err(alert), "{content:?}");
        }
    }
}
