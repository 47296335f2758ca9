//! Whether a query by UDP can be answered with TC=1 from its packet alone, and where to cut it.
//!
//! Before: [`crate::judge`] found the query over its rate. After: dot-ebpf turns it into its own answer: the
//! question, an OPT if the query had one, and nothing else. A resolver then comes back over TCP, and proves
//! its address by doing so.
//! Holds: the walk over one name. Never: makes an answer longer than its query, so that nothing is amplified.
//!
//! Source: RFC 1035 §4.1 (header, question), RFC 2181 §9 (TC), RFC 6891 §6.1.1 (an OPT for an OPT).

use crate::{
    frame::{Located, Payload},
    packet::UDP_HEADER_OCTETS,
};

/// Octets of a DNS header.
pub const HEADER_OCTETS: u32 = 12;
/// Octets of an OPT record without options.
pub const OPT_OCTETS: u32 = 11;
/// Most octets of a name (RFC 1035 §2.3.4).
const NAME_OCTETS_MAX: u32 = 255;
/// Most labels of a name that are walked, the root included. The address of an IPv6 host has 34 (RFC 3596 §2.5), and
/// the kernel's verifier walks every step.
const LABELS_MAX: u32 = 40;
const LABEL_OCTETS_MAX: u64 = 63;
/// Type and class after a question's name.
const TYPE_AND_CLASS_OCTETS: u32 = 4;
/// Root name and type of an OPT record, its first octet lowest.
const OPT_START: u64 = 0x0029_0000;

/// How to make an answer out of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncation {
    /// Length of the question section.
    pub question_octets: u32,
    /// Whether an OPT record follows the question, and is answered by one.
    pub has_opt: bool,
}

impl Truncation {
    /// Length of the answer: a DNS message.
    #[must_use]
    #[inline(always)]
    pub const fn message_octets(&self) -> u32 {
        let opt_octets = if self.has_opt { OPT_OCTETS } else { 0 };
        HEADER_OCTETS + self.question_octets + opt_octets
    }
}

/// The plan for a whole datagram; `None`: the datagram is not a plain query with one question, and gets no answer.
///
/// A packet with IP options or extension headers gets no answer: a source route would have to be reversed. Nor does a
/// multicast or broadcast frame: its destination is no address that could answer.
#[inline(always)]
pub fn plan(frame: &impl Payload, located: &Located) -> Option<Truncation> {
    /// QR and opcode of the flags' first octet.
    const KIND: u64 = 0xf8;
    let message = located.transport + UDP_HEADER_OCTETS;
    let header_octets = if located.is_v6() { 40 } else { 20 };
    let is_plain = located.transport == located.ip + header_octets && !located.is_first_fragment();
    let end = end(frame, located)?;
    const GROUP: u16 = 0x0100;
    let is_group = frame.u16_at(0)? & GROUP != 0;
    if !is_plain || is_group || end < message + HEADER_OCTETS {
        return None;
    }
    // Flags, QDCOUNT, ANCOUNT, NSCOUNT: one question, and no record between it and the additional section.
    let counts = frame.load(message + 2, 8)?;
    if counts & KIND != 0 || counts >> 16 != 0x0100 {
        return None;
    }
    let question = message + HEADER_OCTETS;
    let question_octets = name_octets(frame, question, end)? + TYPE_AND_CLASS_OCTETS;
    let opt = question + question_octets;
    if opt > end {
        return None;
    }
    let has_opt = end - opt >= OPT_OCTETS && frame.load(opt, 3) == Some(OPT_START);
    Some(Truncation { question_octets, has_opt })
}

/// One past the message's last octet, as the UDP header has it.
#[inline(always)]
fn end(frame: &impl Payload, located: &Located) -> Option<u32> {
    Some(located.transport + u32::from(frame.u16_at(located.transport + 4)?))
}

/// Length of an uncompressed name that begins at `start`.
#[inline(always)]
fn name_octets(frame: &impl Payload, start: u32, end: u32) -> Option<u32> {
    let mut octets = 0;
    for _ in 0..LABELS_MAX {
        octets = frame.forget(octets)?;
        if octets >= NAME_OCTETS_MAX || start + octets >= end {
            return None;
        }
        let label_octets = frame.load(start + octets, 1)?;
        if label_octets == 0 {
            return frame.forget(octets + 1);
        }
        if label_octets > LABEL_OCTETS_MAX {
            return None;
        }
        octets += 1 + label_octets as u32;
    }
    None
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    /// A frame of a UDP header and a message, with room for an IPv4 header before them, and nothing else.
    fn planned(message: &[u8]) -> Option<Truncation> {
        let length = u16::try_from(message.len() + 8).unwrap();
        let header = [[0; 24].as_slice(), &length.to_be_bytes(), &[0; 2]].concat();
        let frame = [header.as_slice(), message].concat();
        let end = u32::try_from(frame.len()).unwrap();
        plan(&frame.as_slice(), &Located { ip: 0, transport: 20, end, kind: 17, ports: 0 })
    }

    fn query(labels: &[usize], more: &[u8]) -> Vec<u8> {
        let mut message = [7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0].to_vec();
        for label in labels {
            message.push(u8::try_from(*label).unwrap());
            message.resize(message.len() + label, b'x');
        }
        message.extend([0, 0, 1, 0, 1]);
        message.extend(more);
        message
    }

    /// Goal: a plain query is cut behind its question, with room for an OPT if it had one.
    #[test]
    fn cuts_behind_the_question() {
        const OPT: [u8; 11] = [0, 0, 41, 4, 208, 0, 0, 128, 0, 0, 0];
        let cut = |question_octets, has_opt| Some(Truncation { question_octets, has_opt });
        assert_eq!(planned(&query(&[], &[])), cut(5, false));
        assert_eq!(planned(&query(&[3, 7], &[])), cut(17, false));
        assert_eq!(planned(&query(&[3, 7], &OPT)), cut(17, true));
        assert_eq!(planned(&query(&[3, 7], &OPT[..10])), cut(17, false));
        assert_eq!(planned(&query(&[3, 7], &[0, 0, 250, 0, 255, 0, 0, 0, 0, 0, 0])), cut(17, false));
        assert_eq!(planned(&query(&[63, 63, 63, 61], &OPT)), cut(259, true));
        assert_eq!(planned(&query(&[1; 39], &[])), cut(83, false));
        assert_eq!(planned(&query(&[1; 40], &[])), None, "more labels than we walk");
        assert_eq!(planned(&query(&[63, 63, 63, 62], &[])), None, "a name of 256 octets");
    }

    /// Goal: a datagram that is not a plain query with one question gets no answer.
    #[test]
    fn refuses_what_is_no_plain_query() {
        let patched = |offset: usize, octet: u8| {
            let mut message = query(&[3, 7], &[]);
            message[offset] = octet;
            planned(&message)
        };
        assert!(patched(2, 0x01).is_some() && patched(3, 0xff).is_some());
        for (offset, octet, what) in [
            (2, 0x81, "a response"),
            (2, 0x28, "an update"),
            (2, 0x20, "a notify"),
            (5, 0, "no question"),
            (5, 2, "two questions"),
            (4, 1, "257 questions"),
            (7, 1, "an answer"),
            (9, 1, "an authority"),
            (12, 0xc0, "a compressed name"),
            (12, 64, "a label of 64 octets"),
            (12, 40, "a label beyond the end"),
        ] {
            assert_eq!(patched(offset, octet), None, "{what}");
        }
        for octets in 0..29 {
            assert_eq!(planned(&query(&[3, 7], &[])[..octets]), None, "{octets} octets");
        }
    }

    proptest! {
        /// Goal: no octets make it panic, and no answer is longer than its query.
        #[test]
        fn answers_are_never_longer_than_queries(
            head in prop_oneof![Just([7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0].to_vec()), prop::collection::vec(any::<u8>(), 12)],
            tail in prop::collection::vec(prop_oneof![0u8..5, Just(41), any::<u8>()], 0..300),
        ) {
            let message = [head, tail].concat();
            if let Some(found) = planned(&message) {
                prop_assert!(found.message_octets() as usize <= message.len());
            }
        }
    }
}
