//! The options of an OPT record: finds and strips them, and writes those of this hop.
//!
//! Before: `records` found the OPT. After: `forward` and `respond` have edited it.
//! Holds: which options are hop-by-hop, and the size of a padding block.
//! Never: touches an option that is not hop-by-hop.
//!
//! Source: RFC 6891 §6.1.2, RFC 7828 §3, RFC 7830 §3, RFC 8467 §4.1, RFC 8914 §2.

use super::{
    Ede,
    records::{u16_at, write_at},
};

/// OPTION-CODE of edns-tcp-keepalive (RFC 7828 §3.1).
pub const KEEPALIVE_OPTION: u16 = 11;
/// OPTION-CODE of Padding (RFC 7830 §3).
pub const PADDING_OPTION: u16 = 12;
/// OPTION-CODE of Extended DNS Error (RFC 8914 §2).
const EDE_OPTION: u16 = 15;
/// OPTION-CODE of Client Subnet (RFC 7871 §6).
pub const SUBNET_OPTION: u16 = 8;
/// OPTION-CODE of Cookie (RFC 7873 §4).
const COOKIE_OPTION: u16 = 10;
/// Octets of a client's own part of a cookie, which comes first (RFC 7873 §4.1).
pub const CLIENT_COOKIE_OCTETS: usize = 8;
/// OPTION-CODE of Report-Channel (RFC 9567 §5).
const REPORT_CHANNEL_OPTION: u16 = 18;
/// Responses are padded to a multiple of this many octets (RFC 8467 §4.1).
pub const PADDING_BLOCK_OCTETS: usize = 468;
/// OPTION-CODE and OPTION-LENGTH.
const OPTION_HEADER_OCTETS: usize = 4;
/// Largest DNS message over a stream.
const MESSAGE_OCTETS_MAX: usize = 65_535;

/// Options in one OPT record that concern this hop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct HopOptions {
    /// edns-tcp-keepalive is there.
    pub keepalive: bool,
    /// Padding is there.
    pub padding: bool,
    /// A client subnet is there.
    pub subnet: bool,
    /// Offset of the client part of the first cookie.
    pub cookie: Option<usize>,
}

/// Walks the options in `rdata`: code and value of each. `None`: an option does not fit.
pub fn options(rdata: &[u8]) -> impl Iterator<Item = Option<(u16, &[u8])>> {
    let mut rest = rdata;
    std::iter::from_fn(move || {
        #[cfg(test)]
        looks::add();
        if rest.is_empty() {
            return None;
        }
        let whole = u16_at(rest, 2).map(|octets| OPTION_HEADER_OCTETS + usize::from(octets));
        let (Some(code), Some((option, behind))) =
            (u16_at(rest, 0), whole.and_then(|octets| rest.split_at_checked(octets)))
        else {
            rest = &[];
            return Some(None);
        };
        rest = behind;
        Some(Some((code, option)))
    })
}

/// Whether an option of a response is the same for every client with the same question.
pub(super) fn is_for_all(code: u16) -> bool {
    matches!(code, KEEPALIVE_OPTION | PADDING_OPTION | EDE_OPTION | REPORT_CHANNEL_OPTION)
}

/// Finds hop-by-hop options. `None`: an option runs past the record.
pub(super) fn read_hop_options(rdata: &[u8]) -> Option<HopOptions> {
    let mut found = HopOptions::default();
    let mut start = 0;
    for option in options(rdata) {
        let (code, octets) = option?;
        match code {
            KEEPALIVE_OPTION => found.keepalive = true,
            PADDING_OPTION => found.padding = true,
            SUBNET_OPTION => found.subnet = true,
            COOKIE_OPTION if octets.len() >= OPTION_HEADER_OCTETS + CLIENT_COOKIE_OCTETS => {
                found.cookie = found.cookie.or(Some(start + OPTION_HEADER_OCTETS));
            }
            _ => {}
        }
        start += octets.len();
    }
    Some(found)
}

/// Appends every option of `rdata` that is not hop-by-hop, unchanged. Without `has_subnet` a client subnet is removed
/// too.
pub(super) fn copy_end_to_end(rdata: &[u8], has_subnet: bool, out: &mut Vec<u8>) {
    for (code, option) in options(rdata).flatten() {
        if code != KEEPALIVE_OPTION && code != PADDING_OPTION && (has_subnet || code != SUBNET_OPTION) {
            out.extend_from_slice(option);
        }
    }
}

fn write_option_header(out: &mut Vec<u8>, code: u16, octets: u16) {
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(&octets.to_be_bytes());
}

/// Appends edns-tcp-keepalive; the timeout in units of 100 ms.
pub(super) fn write_keepalive(out: &mut Vec<u8>, timeout_100ms: u16) {
    write_option_header(out, KEEPALIVE_OPTION, 2);
    out.extend_from_slice(&timeout_100ms.to_be_bytes());
}

/// Appends an extended error.
pub(super) fn write_ede(out: &mut Vec<u8>, ede: Ede) {
    write_ede_text(out, ede.code, ede.text);
}

/// Appends an extended error by its code and its text.
pub(super) fn write_ede_text(out: &mut Vec<u8>, code: u16, text: &str) {
    let text_octets = u16::try_from(text.len()).unwrap_or_default();
    write_option_header(out, EDE_OPTION, 2 + text_octets);
    out.extend_from_slice(&code.to_be_bytes());
    if text_octets > 0 {
        out.extend_from_slice(text.as_bytes());
    }
}

/// Pads a response: see [`write_padding_to`].
pub(super) fn write_padding(out: &mut Vec<u8>, message_start: usize, behind_octets: usize) {
    write_padding_to(out, message_start, behind_octets, PADDING_BLOCK_OCTETS);
}

/// Appends padding, so that the message that began at `message_start`, with this many octets still to follow, ends on a
/// boundary of a block.
///
/// Zero fill (RFC 7830 §3). A message near the maximum length is padded up to that instead.
pub(super) fn write_padding_to(
    out: &mut Vec<u8>,
    message_start: usize,
    behind_octets: usize,
    block_octets: usize,
) {
    let unpadded = out.len() - message_start + behind_octets + OPTION_HEADER_OCTETS;
    let target = unpadded.next_multiple_of(block_octets).min(MESSAGE_OCTETS_MAX);
    let Some(fill) = target.checked_sub(unpadded).and_then(|octets| u16::try_from(octets).ok()) else {
        return;
    };
    write_option_header(out, PADDING_OPTION, fill);
    out.resize(out.len() + usize::from(fill), 0);
}

/// Moves the last `octets` of `message`, which are options, into the OPT record whose options begin at `opt_rdata`, in
/// front of the octets behind it.
pub(super) fn take_in(message: &mut [u8], opt_rdata: usize, octets: usize) {
    let length_at = opt_rdata.saturating_sub(2);
    let length = u16_at(message, length_at).map_or(0, usize::from);
    let behind = message.get_mut(opt_rdata + length..);
    if let Some(behind) = behind.filter(|behind| behind.len() >= octets) {
        behind.rotate_right(octets);
        write_at(message, length_at, u16::try_from(length + octets).unwrap_or_default());
    }
}

/// How often a test's thread looked for an option: the tests count work, because a clock would be inexact.
#[cfg(test)]
pub(super) mod looks {
    use std::cell::Cell;

    thread_local!(static LOOKS: Cell<usize> = const { Cell::new(0) });

    pub(super) fn add() {
        LOOKS.set(LOOKS.get() + 1);
    }

    /// Looks that `work` made.
    pub(in crate::dns) fn of(work: impl FnOnce()) -> usize {
        LOOKS.set(0);
        work();
        LOOKS.get()
    }
}
