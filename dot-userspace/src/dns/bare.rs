//! Errors that consist of a header alone: tells them from other messages, and adds the question again.
//!
//! Before: `backend` has a message that does not repeat the question. After: it is the answer to that query, or not.
//! Why: servers answer so when they do not parse a question: Unbound to a client that its access list refuses, NSD to a
//! class that it does not serve, BIND to a message that it cannot parse. Dropping it would turn an answer into silence.
//! Never: takes a positive or negative answer for an error: those repeat the question (RFC 5452 §9.1). A forged error
//! can do no more harm than dropping the query.
//!
//! Source: RFC 1035 §4.1.1, RFC 8906 §3.1.4, RFC 8945 §5.3.

use super::{
    ResponseCode, rcode_of,
    records::{Counts, HEADER_OCTETS, walk_tail, write_at},
};

/// Whether `message` answers `query` with an error and without a question: no records except in the additional section,
/// or only a header, whatever its counts say. The caller compares the ID.
#[must_use]
pub fn is_bare_error(message: &[u8], query: &[u8]) -> bool {
    let Some(counts) = Counts::read(message) else { return false };
    // QR, and the opcode of the query.
    let opcode = query.get(2).map_or(0, |flags| flags & 0x78);
    let is_response = message.get(2).is_some_and(|flags| flags & 0xf8 == 0x80 | opcode);
    let is_error = !matches!(rcode_of(message), ResponseCode::NoError | ResponseCode::NXDomain);
    let is_bare = Counts { additional: counts.additional, ..Counts::default() } == counts;
    is_response && is_error && (is_bare || message.len() == HEADER_OCTETS)
}

/// Writes the bare error `message` into `out` with the question of `query`, which ends at `question_end`, because the
/// client compares questions too. Returns where the question of `out` ends. A signed message is not changed.
pub fn with_question(message: &[u8], query: &[u8], question_end: usize, out: &mut Vec<u8>) -> usize {
    out.clear();
    let counts = Counts::read(message).filter(|_| message.len() > HEADER_OCTETS).unwrap_or_default();
    let tail = walk_tail(message, HEADER_OCTETS, counts);
    if tail.is_ok_and(|tail| tail.is_signed) {
        out.extend_from_slice(message);
        return HEADER_OCTETS;
    }
    let (header, rest) = message.split_at_checked(HEADER_OCTETS).unwrap_or_default();
    out.extend_from_slice(header);
    for (offset, count) in [(4, 1), (6, 0), (8, 0), (10, counts.additional)] {
        write_at(out, offset, count);
    }
    out.extend_from_slice(query.get(HEADER_OCTETS..question_end).unwrap_or_default());
    out.extend_from_slice(rest);
    question_end
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A query for the root's addresses, ID 7, RD.
    const QUERY: [u8; 17] = [0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1];
    const OPT: [u8; 11] = [0, 0, 41, 5, 120, 0, 0, 0, 0, 0, 0];

    fn header(flags: [u8; 2], counts: [u8; 4]) -> Vec<u8> {
        [vec![0, 7], flags.to_vec(), counts.iter().flat_map(|count| [0, *count]).collect()].concat()
    }

    /// Goal: an error without a question is an answer, for every error rcode; a positive or negative answer, a query,
    /// another opcode and a message with records are not. Method: each of the sixteen rcodes, then the others. Covers:
    /// C-230
    #[test]
    fn an_error_needs_no_question() {
        for rcode in 0..16 {
            let message = header([0x81, rcode], [0; 4]);
            assert_eq!(is_bare_error(&message, &QUERY), !matches!(rcode, 0 | 3), "rcode {rcode}");
        }
        let with_opt = [header([0x81, 5], [0, 0, 0, 1]), OPT.to_vec()].concat();
        assert!(is_bare_error(&with_opt, &QUERY));
        assert!(is_bare_error(&header([0x81, 1], [1, 0, 0, 1]), &QUERY), "the header alone, counts copied");
        for lie in [
            header([0x01, 5], [0; 4]),
            header([0x91, 5], [0; 4]),
            [header([0x81, 5], [0, 1, 0, 0]), OPT.to_vec()].concat(),
            [header([0x81, 5], [1, 0, 0, 0]), vec![0, 0, 2, 0, 1]].concat(),
            header([0x81, 5], [0; 4])[..11].to_vec(),
        ] {
            assert!(!is_bare_error(&lie, &QUERY), "{lie:02x?}");
        }
    }

    /// Goal: the client gets the error with its own question, and with the OPT that came; a signed error is not
    /// changed.
    #[test]
    fn the_question_comes_back() {
        let mut out = Vec::new();
        for (message, expected) in [
            (header([0x81, 5], [0; 4]), [header([0x81, 5], [1, 0, 0, 0]), QUERY[12..].to_vec()].concat()),
            (
                header([0x81, 1], [1, 0, 0, 1]),
                [header([0x81, 1], [1, 0, 0, 0]), QUERY[12..].to_vec()].concat(),
            ),
            (
                [header([0x81, 5], [0, 0, 0, 1]), OPT.to_vec()].concat(),
                [header([0x81, 5], [1, 0, 0, 1]), QUERY[12..].to_vec(), OPT.to_vec()].concat(),
            ),
        ] {
            assert_eq!(with_question(&message, &QUERY, QUERY.len(), &mut out), QUERY.len());
            assert_eq!(out, expected);
        }
        let tsig = [0, 0, 250, 0, 255, 0, 0, 0, 0, 0, 1, 9];
        let signed = [&header([0x81, 9], [0, 0, 0, 1])[..], &tsig].concat();
        assert_eq!(with_question(&signed, &QUERY, QUERY.len(), &mut out), HEADER_OCTETS);
        assert_eq!(out, signed);
    }
}
