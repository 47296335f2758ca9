//! Shortens a response that is too long for a datagram, and sets TC.
//!
//! Before: a response was written for a client over UDP. After: header, question, OPT, and TC=1: the client asks again
//! over TCP.
//! Never: keeps a part of an RRset (RFC 2181 §9): it keeps no record.
//!
//! Source: RFC 2181 §9, RFC 6891 §6.2.3 and §7, RFC 9715 §3.

use super::{
    HEADER_OCTETS, Query,
    records::{Counts, u16_at, walk_tail, write_at},
};

/// Assumed payload size of a client that sends none (RFC 1035 §4.2.1), or a smaller one (RFC 6891 §6.2.3).
const PAYLOAD_OCTETS_MIN: u16 = 512;
/// Longest datagram that dotd sends, whatever a client accepts: it passes every IPv6 link without a fragment (1280
/// octets less the headers; RFC 9715 §3.1 permits 1400).
const PAYLOAD_OCTETS_MAX: u16 = 1232;
/// Octets of an OPT record without options.
const OPT_OCTETS: usize = 11;

/// Longest datagram for the client that sent `message`, which `query` describes.
#[must_use]
pub fn datagram_octets_max(message: &[u8], query: &Query) -> usize {
    // CLASS, behind the root label and TYPE.
    let payload = query.opt.and_then(|opt| u16_at(message, opt.start + 3)).unwrap_or(PAYLOAD_OCTETS_MIN);
    usize::from(payload.clamp(PAYLOAD_OCTETS_MIN, PAYLOAD_OCTETS_MAX))
}

/// Cuts the response that begins at `start` of `out` and whose question ends at `question_end` of it.
pub fn truncate(out: &mut Vec<u8>, start: usize, question_end: usize) {
    let response = out.get(start..).unwrap_or_default();
    let tail = Counts::read(response).and_then(|counts| walk_tail(response, question_end, counts).ok());
    let opt = tail.and_then(|tail| tail.opt).and_then(|opt| {
        response.get(opt.start..opt.start + OPT_OCTETS)?.first_chunk::<OPT_OCTETS>().copied()
    });
    out.truncate(start + question_end);
    if let Some(flags) = out.get_mut(start + 2) {
        *flags |= 0x02;
    }
    if let Some(mut opt) = opt {
        // No options.
        [opt[OPT_OCTETS - 2], opt[OPT_OCTETS - 1]] = [0, 0];
        out.extend_from_slice(&opt);
    }
    let has_question = u16::from(question_end > HEADER_OCTETS);
    for (offset, count) in [(4, has_question), (6, 0), (8, 0), (10, u16::from(opt.is_some()))] {
        write_at(out, start + offset, count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUERY: [u8; 21] = *b"\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03big\x00\x00\x10\x00\x01";

    fn with_payload(octets: u16) -> Vec<u8> {
        let mut message = QUERY.to_vec();
        message[11] = 1;
        message.extend_from_slice(&[0, 0, 41]);
        message.extend_from_slice(&octets.to_be_bytes());
        message.extend_from_slice(&[0, 0, 0x80, 0, 0, 0]);
        message
    }

    /// Covers: C-46.
    #[test]
    fn a_client_gets_what_it_takes_and_no_fragments() {
        let max = |message: &[u8]| datagram_octets_max(message, &Query::parse(message).unwrap());
        let of = |octets| max(&with_payload(octets));
        assert_eq!((max(&QUERY), of(0), of(511), of(512)), (512, 512, 512, 512));
        assert_eq!((of(1000), of(1232), of(1400), of(u16::MAX)), (1000, 1232, 1232, 1232));
    }

    /// Goal: the rest is valid: header with TC, question, an OPT that keeps DO and its rcode and has no options.
    #[test]
    fn what_is_left_is_whole() {
        let mut response = QUERY.to_vec();
        (response[2], response[7], response[9], response[11]) = (0x81, 1, 1, 1);
        for _ in 0..2 {
            response.extend_from_slice(b"\xc0\x0c\x00\x10\x00\x01\x00\x00\x00\x3c\x00\x02\x01x");
        }
        let head = [0, 0, 41, 0x05, 0x78, 1, 0, 0x80, 0];
        response.extend_from_slice(&[&head[..], &[0, 6, 0, 15, 0, 2, 0, 3]].concat());
        let mut out = b"before".to_vec();
        out.extend_from_slice(&response);
        truncate(&mut out, 6, QUERY.len());
        let mut expected = QUERY.to_vec();
        (expected[2], expected[11]) = (0x83, 1);
        expected.extend_from_slice(&[&head[..], &[0, 0]].concat());
        assert_eq!(&out[6..], expected);
        assert_eq!(&out[..6], b"before");
    }
}
