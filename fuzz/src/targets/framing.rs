//! Framing: a stream is cut in the same places however it arrives, and the messages can be written again.
//!
//! Before: octets of a stream. After: cut whole, and from every growing part of it.
//! Never: reads beyond the first 2,000 octets octet by octet, which would only be slow.

use dot_userspace::dns::framing::{append_message, cut_message};

/// Octets that are also cut from every growing part.
const STEPS_MAX: usize = 2000;

/// Runs the target.
///
/// # Panics
/// When two ways of cutting differ.
pub fn run(octets: &[u8]) {
    let (messages, used, is_broken) = cut_all(octets);
    let mut again = Vec::new();
    for message in &messages {
        let place = append_message(&mut again, |out| {
            out.extend_from_slice(message);
            Ok::<_, ()>(())
        });
        assert!(place.is_ok_and(|place| place.is_some()), "what was cut can be written");
    }
    assert_eq!(again, octets[..used], "cutting loses nothing");
    if is_broken {
        assert_eq!(octets.get(used..used + 2), Some(&[0, 0][..]), "only a prefix of zero breaks a stream");
    }
    let growing = cut_growing(&octets[..octets.len().min(STEPS_MAX)]);
    assert_eq!(growing, messages[..ending_within(&messages, STEPS_MAX)]);
}

/// Cuts the stream: returns the messages, the octets they took, and whether the stream is broken behind them.
fn cut_all(octets: &[u8]) -> (Vec<Vec<u8>>, usize, bool) {
    let (mut messages, mut used) = (Vec::new(), 0);
    loop {
        match cut_message(&octets[used..]) {
            Ok(Some(cut)) => {
                assert!(cut.octets == cut.message.len() + 2 && !cut.message.is_empty());
                messages.push(cut.message.to_vec());
                used += cut.octets;
            }
            Ok(None) => return (messages, used, false),
            Err(_) => return (messages, used, true),
        }
    }
}

/// How many of `messages` end within that many octets of their stream.
fn ending_within(messages: &[Vec<u8>], octets: usize) -> usize {
    let ends = messages.iter().scan(0, |end, message| {
        *end += message.len() + 2;
        Some(*end)
    });
    ends.take_while(|end| *end <= octets).count()
}

/// The same, an octet more at a time.
fn cut_growing(octets: &[u8]) -> Vec<Vec<u8>> {
    let (mut messages, mut start) = (Vec::new(), 0);
    for end in 0..=octets.len() {
        while let Ok(Some(cut)) = cut_message(&octets[start..end]) {
            messages.push(cut.message.to_vec());
            start += cut.octets;
        }
    }
    messages
}
