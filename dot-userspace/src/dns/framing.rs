//! Cuts an octet stream into DNS messages, and writes them into one. Step 6 of 9 on the query path.
//!
//! Before: a client's decrypted stream, or a backend's. After: `dns::triage` or `backend` reads each message.
//! Holds: the two-octet length prefix. It does not look into messages.
//! Never: allocates, waits, knows tokio or rustls.
//!
//! Source: RFC 1035 §4.2.2, RFC 7766 §8, RFC 7858 §3.3.

use thiserror::Error;

/// Octets of the length prefix.
pub const PREFIX_OCTETS: usize = 2;

/// Why a stream can no longer be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FramingError {
    /// No DNS message is empty.
    #[error("length prefix of zero")]
    LengthPrefixZero,
}

/// One message, and where the next one starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut<'a> {
    /// The message, prefix excluded.
    pub message: &'a [u8],
    /// Octets of prefix and message together.
    pub octets: usize,
}

/// Looks at the front of `stream` for one whole message.
///
/// Shape: `[length: u16 big-endian][message: length octets]`. `Ok(None)`: the message is not complete; read more, then
/// call again with the same octets in front.
///
/// # Errors
/// [`FramingError::LengthPrefixZero`].
pub fn cut_message(stream: &[u8]) -> Result<Option<Cut<'_>>, FramingError> {
    let Some((prefix, rest)) = stream.split_first_chunk::<PREFIX_OCTETS>() else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes(*prefix));
    if length == 0 {
        return Err(FramingError::LengthPrefixZero);
    }
    Ok(rest.get(..length).map(|message| Cut { message, octets: PREFIX_OCTETS + length }))
}

/// Each whole message at the front of `stream`, its prefix included; then what is left, if anything.
pub fn frames(stream: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = stream;
    std::iter::from_fn(move || {
        let whole = cut_message(rest).ok().flatten().map_or(rest.len(), |cut| cut.octets);
        let (frame, behind) = rest.split_at_checked(whole)?;
        rest = behind;
        Some(frame).filter(|frame| !frame.is_empty())
    })
}

/// Appends one message that `write` makes, prefix first.
///
/// Returns the message's place in `out`. If `write` makes more than 65,535 octets or none, `out` is unchanged and the
/// result is `None`.
pub fn append_message<E>(
    out: &mut Vec<u8>,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<Option<std::ops::Range<usize>>, E> {
    let start = out.len();
    out.extend_from_slice(&[0; PREFIX_OCTETS]);
    let body = start + PREFIX_OCTETS;
    if let Err(error) = write(out) {
        out.truncate(start);
        return Err(error);
    }
    match u16::try_from(out.len() - body) {
        Ok(length) if length > 0 => {
            if let Some(prefix) = out.get_mut(start..body) {
                prefix.copy_from_slice(&length.to_be_bytes());
            }
            Ok(Some(body..out.len()))
        }
        _ => {
            out.truncate(start);
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn waits_for_the_whole_prefix_and_the_last_octet() {
        assert_eq!(cut_message(&[]), Ok(None));
        assert_eq!(cut_message(&[0]), Ok(None));
        assert_eq!(cut_message(&[0, 2, 7]), Ok(None));
        assert_eq!(cut_message(&[0, 2, 7, 8, 9]), Ok(Some(Cut { message: &[7, 8], octets: 4 })));
    }

    /// Goal: each message is a frame of its own, and no octet is lost. Method: whole ones, the half of one, no lawful one.
    /// Covers: C-662
    #[test]
    fn frames_are_cut_and_nothing_is_lost() {
        let frames = |octets: &'static [u8]| frames(octets).collect::<Vec<_>>();
        assert!(frames(&[]).is_empty());
        assert_eq!(frames(&[0, 1, 7, 0, 2, 8, 9]), [&[0, 1, 7][..], &[0, 2, 8, 9]]);
        assert_eq!(frames(&[0, 1, 7, 0, 2, 8]), [&[0, 1, 7][..], &[0, 2, 8]], "what is left");
        assert_eq!(frames(&[0, 0, 1]), [&[0, 0, 1]]);
    }

    #[test]
    fn refuses_a_zero_length_prefix() {
        assert_eq!(cut_message(&[0, 0, 1]), Err(FramingError::LengthPrefixZero));
    }

    #[test]
    fn leaves_no_trace_of_a_message_that_could_not_be_written() {
        let mut out = vec![1, 2, 3];
        assert_eq!(
            append_message(&mut out, |out| {
                out.push(9);
                Err::<(), _>("no")
            }),
            Err("no")
        );
        assert_eq!(
            append_message(&mut out, |out| {
                out.resize(70_000, 0);
                Ok::<_, ()>(())
            }),
            Ok(None)
        );
        assert_eq!(append_message(&mut out, |_| Ok::<_, ()>(())), Ok(None));
        assert_eq!(out, [1, 2, 3]);
    }

    proptest! {
        /// Goal: cutting returns what was written, however the stream is split. Method: messages of any octets, joined,
        /// cut from growing prefixes of the stream. Covers: C-12, C-13.
        #[test]
        fn cuts_what_was_appended(messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 1..8)) {
            let mut stream = Vec::new();
            for message in &messages {
                append_message(&mut stream, |out| { out.extend_from_slice(message); Ok::<_, ()>(()) }).unwrap();
            }
            let (mut start, mut found) = (0, Vec::new());
            for end in 0..=stream.len() {
                while let Some(cut) = cut_message(&stream[start..end]).unwrap() {
                    found.push(cut.message.to_vec());
                    start += cut.octets;
                }
            }
            prop_assert_eq!(found, messages);
        }
    }
}
