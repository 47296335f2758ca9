//! Writes a query for a backend: our ID, no hop-by-hop option, a payload size for this hop.
//!
//! Before: `triage` said forward. After: `backend` sends the octets.
//! Never: changes a signed message except its ID, or any octet that is not of this hop; passes on octets behind the
//! message.
//!
//! Source: RFC 5625 §4, RFC 6891 §6.2.3, RFC 7828 §4, RFC 7830 §6, RFC 9715 §3.

use super::{
    Query,
    edns::{copy_end_to_end, take_in, write_padding_to},
    records::write_at,
};

/// UDP payload size that dotd advertises to a backend: RFC 9715 §3.2 keeps it at 1400 or less.
pub const BACKEND_PAYLOAD_OCTETS: u16 = 1400;

/// Queries over TLS are padded to a multiple of this many octets (RFC 8467 §4.1).
pub const QUERY_BLOCK_OCTETS: usize = 128;

/// Writes `message`, which `query` describes, into `out` with the message ID `id`. Unless `passes_subnet`, a client
/// subnet is removed like other options of the last hop.
///
/// Returns where the options of its OPT record begin, if that may grow ([`pad_query`]).
///
/// A TSIG covers the original ID inside its own RDATA (RFC 8945 §5.3.1), so the header's may change.
pub fn forward(
    message: &[u8],
    query: &Query,
    id: u16,
    passes_subnet: bool,
    out: &mut Vec<u8>,
) -> Option<usize> {
    out.clear();
    match query.opt {
        Some(opt) if !query.is_signed => {
            let (head, rdata) = (message.get(..opt.rdata), message.get(opt.rdata..opt.end));
            let (head, rdata) = (head.unwrap_or_default(), rdata.unwrap_or_default());
            out.extend_from_slice(head);
            write_at(out, opt.start + 3, BACKEND_PAYLOAD_OCTETS);
            if opt.keepalive || opt.padding || (opt.subnet && !passes_subnet) {
                copy_end_to_end(rdata, passes_subnet, out);
                let octets = u16::try_from(out.len() - opt.rdata).unwrap_or_default();
                write_at(out, opt.rdata - 2, octets);
            } else {
                out.extend_from_slice(rdata);
            }
            out.extend_from_slice(message.get(opt.end..query.end).unwrap_or_default());
        }
        _ => out.extend_from_slice(message.get(..query.end).unwrap_or(message)),
    }
    write_at(out, 0, id);
    query.opt.filter(|opt| opt.may_resize && !query.is_signed).map(|opt| opt.rdata)
}

/// Adds an option, header included, to the OPT whose options begin at `opt_rdata`, the result of [`forward`].
pub fn add_option(query: &mut Vec<u8>, opt_rdata: usize, option: &[u8]) {
    query.extend_from_slice(option);
    take_in(query, opt_rdata, option.len());
}

/// Appends `query` to `out`, padded to a multiple of [`QUERY_BLOCK_OCTETS`]. `opt_rdata` is the result of [`forward`].
pub fn pad_query(query: &[u8], opt_rdata: usize, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(query);
    write_padding_to(out, start, 0, QUERY_BLOCK_OCTETS);
    let octets = out.len() - start - query.len();
    if let Some(message) = out.get_mut(start..) {
        take_in(message, opt_rdata, octets);
    }
}
