//! Writes dotd's own responses: errors, refusals, and failures of the backend.
//!
//! Before: `triage` said respond, or a backend failed. After: `session::writer` seals the octets.
//! Holds: header and question of the query, unchanged (so 0x20 case survives), and our OPT.
//! Never: writes an OPT without one in the query (RFC 6891 §7), or a name of its own.
//!
//! Source: RFC 1035 §4.1.1, RFC 3225 §3, RFC 6891 §6.1, RFC 8914 §3.

use super::{
    HEADER_OCTETS, Reply,
    edns::write_ede,
    forward::BACKEND_PAYLOAD_OCTETS,
    respond::{Hop, write_hop},
};

/// Appends the response that `reply` describes to `out`. `message` is the query it answers.
pub fn synthesize(message: &[u8], reply: &Reply, hop: Hop, out: &mut Vec<u8>) {
    let start = out.len();
    let flags = message.get(2).copied().unwrap_or_default();
    let lower = message.get(3).copied().unwrap_or_default();
    let question = message.get(HEADER_OCTETS..usize::from(reply.asked.question_end)).unwrap_or_default();
    out.extend_from_slice(message.get(..2).unwrap_or(&[0, 0]));
    // QR=1, the query's opcode and RD; CD as in the query, RA and AD clear: dotd resolves nothing.
    out.push(0x80 | (flags & 0x79));
    out.push((lower & 0x10) | reply.rcode.low());
    let has_question = u16::from(!question.is_empty());
    for count in [has_question, 0, 0, u16::from(reply.asked.has_opt)] {
        out.extend_from_slice(&count.to_be_bytes());
    }
    out.extend_from_slice(question);
    if reply.asked.has_opt {
        write_opt(reply, hop, start, out);
    }
}

fn write_opt(reply: &Reply, hop: Hop, start: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(&[0, 0, 41]);
    out.extend_from_slice(&BACKEND_PAYLOAD_OCTETS.to_be_bytes());
    // RFC 3225 §3: DO is copied; the other flags are zero.
    out.extend_from_slice(&[reply.rcode.high(), 0, u8::from(reply.asked.dnssec_ok) << 7, 0, 0, 0]);
    let rdata = out.len();
    if let Some(ede) = reply.ede {
        write_ede(out, ede);
    }
    write_hop(reply.asked, hop, start, 0, out);
    let octets = u16::try_from(out.len() - rdata).unwrap_or_default();
    if let Some(length) = out.get_mut(rdata - 2..rdata) {
        length.copy_from_slice(&octets.to_be_bytes());
    }
}
