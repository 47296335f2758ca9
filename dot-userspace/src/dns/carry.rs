//! Octets of a stream that are not used yet: the beginning of an incomplete message, or messages that wait for room.
//!
//! Before: a session or a connection to a backend has read octets. After: whole messages are cut from them together with the octets
//! that came before, and the rest waits here.
//! Holds: one buffer. Never: copies octets that are used at once; looks into a message.

use bytes::{Buf as _, BytesMut};

/// The octets that wait.
#[derive(Debug, Default)]
pub struct Carry(BytesMut);

impl Carry {
    /// Calls `cut` with the octets that wait, followed by `octets`; it returns how many it has used, from the front. The others wait.
    ///
    /// # Errors
    /// Those of `cut`; then nothing waits any more.
    pub fn cut_with<E>(
        &mut self,
        octets: &[u8],
        cut: impl FnOnce(&[u8]) -> Result<usize, E>,
    ) -> Result<(), E> {
        if self.0.is_empty() {
            let used = cut(octets)?;
            self.0.extend_from_slice(octets.get(used..).unwrap_or_default());
            return Ok(());
        }
        let mut all = std::mem::take(&mut self.0);
        all.extend_from_slice(octets);
        let used = cut(&all)?;
        match all.len() > used {
            true => all.advance(used),
            // The buffer begins at its front again.
            false => all.clear(),
        }
        self.0 = all;
        Ok(())
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Frees the buffer unless octets wait in it.
    #[must_use]
    pub fn trimmed(self) -> Self {
        if self.is_empty() { Self::default() } else { self }
    }
}

impl AsRef<[u8]> for Carry {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl From<BytesMut> for Carry {
    fn from(octets: BytesMut) -> Self {
        Self(octets)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::dns::framing::cut_message;

    /// Uses up to `most` whole messages.
    fn take(octets: &[u8], most: usize, messages: &mut Vec<Vec<u8>>) -> Result<usize, ()> {
        let mut used = 0;
        for _ in 0..most {
            let Some(cut) = cut_message(octets.get(used..).unwrap_or_default()).map_err(drop)? else { break };
            messages.push(cut.message.to_vec());
            used += cut.octets;
        }
        Ok(used)
    }

    proptest! {
        /// Goal: no octet is lost, doubled or moved, in whatever parts a stream comes and however few messages are used at
        /// once; nothing waits at the end. Method: random messages and parts, two messages at most for each part.
        #[test]
        fn messages_come_whole_and_in_order(
            sent in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..20),
            parts in prop::collection::vec(1_usize..400, 1..40),
        ) {
            let mut stream = Vec::new();
            for message in &sent {
                stream.extend_from_slice(&(message.len() as u16).to_be_bytes());
                stream.extend_from_slice(message);
            }
            let (mut carry, mut got, mut rest) = (Carry::default(), Vec::new(), &stream[..]);
            for part in parts.iter().cycle() {
                let (front, behind) = rest.split_at(rest.len().min(*part));
                rest = behind;
                carry.cut_with(front, |octets| take(octets, 2, &mut got)).unwrap();
                carry = carry.trimmed();
                if rest.is_empty() && carry.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(got, sent);
        }
    }

    /// Goal: after an error nothing waits. Method: the beginning of a message, then a length of zero behind its end.
    #[test]
    fn a_broken_stream_keeps_nothing() {
        let (mut carry, mut got) = (Carry::default(), Vec::new());
        carry.cut_with(&[0, 2, 7], |octets| take(octets, 9, &mut got)).unwrap();
        assert_eq!(carry.as_ref(), [0, 2, 7]);
        assert!(carry.cut_with(&[8, 0, 0], |octets| take(octets, 9, &mut got)).is_err());
        assert!(carry.is_empty());
        assert_eq!(got, [[7, 8]]);
    }
}
