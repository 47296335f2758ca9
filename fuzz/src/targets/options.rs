//! The OPT edit by itself: a valid query and a valid response whose OPT record holds any options.
//!
//! Before: octets that are read as a list of options. After: forwarded and responded, with nothing lost.
//! Never: spends its time on headers; `query` and `response` do that.

use dot_userspace::dns::{Allowed, Asked, Disposition, Hop, Query, respond, triage};

use super::{query::assert_forwarded, response::assert_responded};

/// ID 7, RD, one question, one additional record; `d.test` A; an OPT of 4,096 octets with DO, up to its length.
const QUERY: &[u8] = b"\0\x07\x01\0\0\x01\0\0\0\0\0\x01\x01d\x04test\0\0\x01\0\x01\0\0\x29\x10\0\0\0\x80\0";
/// One past the question of [`QUERY`].
const QUESTION_END: usize = 12 + 8 + 4;

/// Runs the target.
///
/// # Panics
/// When an edit loses or keeps what it should not.
pub fn run(octets: &[u8]) {
    let Some((&wishes, rest)) = octets.split_first() else { return };
    let rdata = &rest[..rest.len().min(65_000 - QUERY.len())];
    let length = u16::try_from(rdata.len()).expect("cut to fit");
    let message = [QUERY, &length.to_be_bytes(), rdata].concat();
    if let Disposition::Forward(query) = triage(&message, Allowed::default()) {
        assert_forwarded(&message, &query);
        assert_eq!(Asked::by(&query).has_opt, Query::parse(&message).is_ok());
    }
    let mut response = message;
    response[2] |= 0x80;
    let hop = Hop { padding: wishes & 1 != 0, keepalive_100ms: (wishes & 2 != 0).then_some(300) };
    let asked = Asked::by(&Query::parse(&asking(wishes)).expect("sound"));
    let mut out = Vec::new();
    if respond(&response, asked, hop, &mut out).is_ok() {
        assert_responded(&response, asked, hop, &out);
    } else {
        assert!(out.is_empty());
    }
}

/// A query with the same question, an OPT, and the hop-by-hop options that bits 2 to 4 of `wishes` ask for.
pub(super) fn asking(wishes: u8) -> Vec<u8> {
    let mut rdata = Vec::new();
    if wishes & 4 != 0 {
        rdata.extend([0, 11, 0, 0]);
    }
    if wishes & 8 != 0 {
        rdata.extend([0, 12, 0, 3, 1, 2, 3]);
    }
    if wishes & 16 != 0 {
        let mut plain = QUERY[..QUESTION_END].to_vec();
        plain[11] = 0;
        return plain;
    }
    let length = u16::try_from(rdata.len()).expect("few");
    [QUERY, &length.to_be_bytes(), &rdata].concat()
}
