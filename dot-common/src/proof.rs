//! Proofs by completed connections, for clients whose SYNs are over their rate.
//!
//! Before: the loader counted the connections that a client completed, which cannot be forged. After: [`crate::judge`]
//! knows how to treat a SYN over the rate. Holds: the one word that the map PROVEN has for a client.
//! Never: is written by a packet.

/// How far a client is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// It completed no connection lately: SYNs in its name may be forged.
    Unknown,
    /// It completed handshakes, and these are within its rate.
    Proven,
    /// It completed more connections than its rate allows: the client itself is over its rate.
    Excessive,
}

/// A proof about a client, with its end. 8 octets; all zero: no proof.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Proof(u64);

impl Proof {
    const EXCESSIVE: u64 = 1 << 63;

    /// Proven until this monotonic time.
    #[must_use]
    pub const fn proven(until_ns: u64) -> Self {
        Self(until_ns & !Self::EXCESSIVE)
    }

    /// Over its rate until this monotonic time.
    #[must_use]
    pub const fn excessive(until_ns: u64) -> Self {
        Self(until_ns | Self::EXCESSIVE)
    }

    /// The trust that the proof gives at a time.
    #[must_use]
    #[inline(always)]
    pub const fn trust(self, now_ns: u64) -> Trust {
        if self.0 & !Self::EXCESSIVE <= now_ns {
            Trust::Unknown
        } else if self.0 & Self::EXCESSIVE == 0 {
            Trust::Proven
        } else {
            Trust::Excessive
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a word keeps its meaning until its time is over, and nothing from then on; zero means nothing.
    #[test]
    fn words_end_with_their_time() {
        assert_eq!(Proof::default().trust(0), Trust::Unknown);
        assert_eq!((Proof::proven(5).trust(4), Proof::proven(5).trust(5)), (Trust::Proven, Trust::Unknown));
        assert_eq!(
            (Proof::excessive(5).trust(4), Proof::excessive(5).trust(5)),
            (Trust::Excessive, Trust::Unknown)
        );
        assert_eq!(Proof::proven(u64::MAX).trust(1 << 62), Trust::Proven);
    }
}
