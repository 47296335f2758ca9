//! A name in wire format, in lower case, with its labels from the last to the first: the order in which zones are
//! searched.
//!
//! Before: the question of a query, a name within a response, or a word of a zone file. After: `policy::Index` walks
//! down from the root.
//! Holds: the octets of one name and the offsets of its labels; on the stack.
//! Never: allocates; accepts more labels or octets than a name may have.
//!
//! Source: RFC 1035 §3.1, §4.1.4 and §5.1, RFC 4343.

use super::{NAME_OCTETS_MAX, name_in_words};

/// Most labels of a name, without the root's.
const LABELS_MAX: usize = 127;
/// Most pointers that are followed for one name: a name of an answer needs one or two.
const POINTERS_MAX: usize = 16;

/// A name for a search.
#[derive(Clone)]
pub struct Labels {
    octets: [u8; NAME_OCTETS_MAX],
    octet_count: u8,
    starts: [u8; LABELS_MAX],
    label_count: u8,
}

impl Labels {
    /// The name that begins at `start` of `message`; pointers lead backwards only, as they must (RFC 1035 §4.1.4).
    #[must_use]
    pub fn read(message: &[u8], start: usize) -> Option<Self> {
        let mut name = Self::nothing();
        let (mut at, mut limit, mut pointers) = (start, message.len(), 0);
        loop {
            let length = usize::from(*message.get(at).filter(|_| at < limit)?);
            match length {
                0 => return name.push(&[0], false).then_some(name),
                1..=63 => {
                    if !name.push(message.get(at..at + 1 + length)?, true) {
                        return None;
                    }
                    at += 1 + length;
                }
                192.. if pointers < POINTERS_MAX => {
                    let target = (length & 0x3f) << 8 | usize::from(*message.get(at + 1)?);
                    (limit, pointers) = (at.min(limit), pointers + 1);
                    at = Some(target).filter(|target| *target < limit)?;
                }
                _ => return None,
            }
        }
    }

    fn nothing() -> Self {
        Self { octets: [0; NAME_OCTETS_MAX], octet_count: 0, starts: [0; LABELS_MAX], label_count: 0 }
    }

    /// The name `text` of a zone file: relative to `origin` unless it ends in a dot; `@` is `origin` itself.
    ///
    /// # Errors
    /// The mistake in it.
    pub fn parse(text: &[u8], origin: Option<&Self>) -> Result<Self, &'static str> {
        let mut name = Self::nothing();
        if let (b"@", Some(origin)) = (text, origin) {
            return Ok(origin.clone());
        }
        let (mut rest, mut is_whole) = (text, text == b".");
        if is_whole {
            rest = &[];
        }
        while !rest.is_empty() {
            let mut label = [0; 64];
            let behind = read_label(rest, &mut label)?;
            let whole = label.get(..=usize::from(label[0])).unwrap_or_default();
            if !name.push(whole, true) {
                return Err(TOO_LONG);
            }
            is_whole = behind.as_ref().is_some_and(|behind| behind.is_empty());
            rest = behind.unwrap_or_default();
        }
        let end = origin.filter(|_| !is_whole).map_or(&[0][..], Labels::octets);
        name.extend(end).then_some(name).ok_or(TOO_LONG)
    }

    /// The name `front` without its root label, followed by the whole of `self`. `None`: the result is too long.
    #[must_use]
    pub fn below(&self, front: &[u8]) -> Option<Self> {
        let mut name = Self::nothing();
        let labels = front.split_last().map(|(_, labels)| labels)?;
        (name.extend(labels) && name.extend(self.octets())).then_some(name)
    }

    /// Appends a name in wire format, or its first labels.
    fn extend(&mut self, wire: &[u8]) -> bool {
        let mut rest = wire;
        while let Some(length) = rest.first() {
            let Some((label, behind)) = rest.split_at_checked(1 + usize::from(*length)) else { return false };
            if !self.push(label, label.len() > 1) {
                return false;
            }
            rest = behind;
        }
        true
    }

    fn push(&mut self, label: &[u8], is_label: bool) -> bool {
        let start = usize::from(self.octet_count);
        let (Some(place), Ok(end)) =
            (self.octets.get_mut(start..start + label.len()), u8::try_from(start + label.len()))
        else {
            return false;
        };
        place.copy_from_slice(label);
        // A length octet is below every letter.
        place.make_ascii_lowercase();
        if is_label {
            let Some(place) = self.starts.get_mut(usize::from(self.label_count)) else { return false };
            *place = self.octet_count;
            self.label_count += 1;
        }
        self.octet_count = end;
        true
    }

    /// In wire format.
    #[must_use]
    pub fn octets(&self) -> &[u8] {
        self.octets.get(..usize::from(self.octet_count)).unwrap_or_default()
    }

    /// Its labels with their length octets, the last first; without the root's.
    pub fn labels(&self) -> impl Iterator<Item = &[u8]> {
        let starts = self.starts.get(..usize::from(self.label_count)).unwrap_or_default();
        starts.iter().rev().filter_map(|start| {
            let start = usize::from(*start);
            let length = usize::from(*self.octets.get(start)?);
            self.octets.get(start..=start + length)
        })
    }

    /// The number of its labels, without the root's.
    #[must_use]
    pub fn count(&self) -> usize {
        usize::from(self.label_count)
    }

    /// The octets of its last `count` labels, without the root's.
    #[must_use]
    pub fn last(&self, count: usize) -> &[u8] {
        let end = usize::from(self.octet_count).saturating_sub(1);
        let first = usize::from(self.label_count).saturating_sub(count);
        let start = self.starts.get(..usize::from(self.label_count)).and_then(|starts| starts.get(first));
        self.octets.get(start.map_or(end, |start| usize::from(*start))..end).unwrap_or_default()
    }

    /// The name as text.
    #[must_use]
    pub fn text(&self) -> String {
        text_of(self.octets())
    }
}

/// Reads the first label of `text`, with its length octet, into `label`. Returns the text after the dot that ends it.
/// `None`: no dot does.
fn read_label<'t>(text: &'t [u8], label: &mut [u8; 64]) -> Result<Option<&'t [u8]>, &'static str> {
    let (mut rest, mut length) = (text, 0_u8);
    loop {
        let (octet, behind) = match rest {
            [] | [b'.', ..] => {
                if length == 0 {
                    return Err("a label is empty");
                }
                label[0] = length;
                return Ok(rest.get(1..));
            }
            [b'\\', a @ b'0'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', behind @ ..] => {
                let number = [a, b, c].iter().fold(0, |sum, digit| sum * 10 + u16::from(**digit - b'0'));
                (u8::try_from(number).map_err(|_| "\\DDD is more than 255")?, behind)
            }
            [b'\\', octet, behind @ ..] | [octet, behind @ ..] => (*octet, behind),
        };
        length += 1;
        let Some(place) = label.get_mut(usize::from(length)) else {
            return Err("a label has more than 63 octets");
        };
        *place = octet;
        rest = behind;
    }
}

const TOO_LONG: &str = "a name has more than 255 octets";

/// A name in wire format as text, without the dot at its end; octets that do not belong in a host name are written as
/// `\ddd`.
#[must_use]
pub fn text_of(name: &[u8]) -> String {
    let mut text = name_in_words(name);
    if text.len() > 1 {
        text.pop();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a name is read in lower case, label by label from its end, through pointers, and invalid names are
    /// rejected.
    /// Method: names within a message; a pointer to itself, a forward pointer, and a name that is too long. Covers:
    ///
    #[test]
    fn names_are_read_as_they_must_be() {
        let message = b"\x03WwW\x07Example\x03net\x00\x04mail\xc0\x04\xc0\x17\xc0\x1b\x40a";
        let name = Labels::read(message, 0).unwrap();
        assert_eq!(name.octets(), b"\x03www\x07example\x03net\x00");
        assert_eq!(name.labels().collect::<Vec<_>>(), [&b"\x03net"[..], b"\x07example", b"\x03www"]);
        assert_eq!(Labels::read(message, 17).unwrap().text(), "mail.example.net");
        assert_eq!(Labels::read(message, 16).unwrap().text(), ".");
        for broken in [24, 26, 28, 29, 99] {
            assert!(Labels::read(message, broken).is_none(), "{broken}");
        }
        let long: Vec<u8> = (0..5).flat_map(|_| [&[62][..], &[b'a'; 62]].concat()).chain([0]).collect();
        assert!(Labels::read(&long, 0).is_none());
        let many: Vec<u8> = [1, b'a'].repeat(127).into_iter().chain([0]).collect();
        assert_eq!(Labels::read(&many, 0).unwrap().labels().count(), 127);
        let loops = [3, b'a', b'b', b'c', 192, 0];
        assert!(Labels::read(&loops, 0).is_none());
    }

    /// Goal: names of a zone file mean what RFC 1035 §5.1 says. Covers: C-441
    #[test]
    fn names_are_parsed_as_they_are_written() {
        let origin = Labels::parse(b"RPZ.example.", None).unwrap();
        let of = |text: &str| Labels::parse(text.as_bytes(), Some(&origin)).map(|name| name.text());
        for (text, name) in [
            ("@", "rpz.example"),
            (".", "."),
            ("*.A", "*.a.rpz.example"),
            ("b.test.", "b.test"),
            ("a\\.b\\065.", "a\\046ba"),
        ] {
            assert_eq!(of(text).as_deref(), Ok(name), "{text}");
        }
        for text in ["a..b", ".a", "\\999", &"a".repeat(64), &"abcdefg.".repeat(40)] {
            assert!(of(text).is_err(), "{text}");
        }
        let garden = Labels::parse(b"garden.", None).unwrap();
        assert_eq!(garden.below(b"\x01a\x01b\x00").unwrap().text(), "a.b.garden");
        assert!(garden.below(&[&[63][..], &[b'a'; 63]].concat().repeat(4)).is_none());
    }

    #[test]
    fn odd_octets_are_escaped() {
        assert_eq!(text_of(b"\x03a.b\x01*\x00"), "a\\046b.*");
    }
}
