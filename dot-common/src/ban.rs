//! An entry of the map BANS: the end of a client's ban, its cause, and the number of refused packets.
//!
//! Before: the engine or an operator has banned a client. After: [`crate::judge`] refuses its packets: all of them if an
//! operator banned it, else those that begin a connection or are datagrams.
//! Holds: the value's shape, and the possible authors of a ban. The key is a [`crate::prefix::ClientPrefix`]'s.
//! Never: reads a clock; both halves use the kernel's monotonic one.

/// One ban. 24 octets, no padding.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ban {
    /// Monotonic time in nanoseconds at which it ends.
    pub until_ns: u64,
    /// Packets that it refused. XDP adds to it; the writer of the ban begins at zero.
    pub hits: u64,
    /// A [`Cause`].
    pub cause: u32,
    /// Length of the client prefix in bits: the key alone does not contain it.
    pub bits: u16,
    /// Distinguishes this ban from earlier and later bans of the client, whose hits a CPU may not have added yet. A ban
    /// that is extended keeps its serial.
    pub serial: u16,
}

const _: () = assert!(size_of::<Ban>() == 24 && align_of::<Ban>() == 8);

/// Names one cause per line: variant, name.
macro_rules! causes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal;)*) => {
        /// Why a client is banned.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Cause { $($(#[$doc])* $variant),* }

        impl Cause {
            /// Every cause, in the order of its number.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Its name in lists and metrics.
            #[must_use]
            pub const fn name(self) -> &'static str { match self { $(Self::$variant => $name),* } }
        }
    };
}

causes! {
    /// An operator banned the client: the ban holds also where limits only count.
    Operator = "operator";
    /// Streams that repeatedly begin with octets that are not TLS.
    Garbage = "garbage";
    /// Handshakes that fail repeatedly.
    Handshakes = "handshakes";
    /// Responses that the client asked for and does not read.
    SlowReads = "slow_reads";
    /// Messages that cannot be cut out of their stream.
    Malformed = "malformed";
    /// Queries that are misuse by what they ask for.
    Misuse = "misuse";
}

impl Cause {
    /// The cause of a number; `None` for an unknown number.
    #[must_use]
    pub fn of(number: u32) -> Option<Self> {
        usize::try_from(number).ok().and_then(|number| Self::ALL.get(number)).copied()
    }
}

impl Ban {
    /// Whether the ban is still in force.
    #[must_use]
    #[inline(always)]
    pub const fn stands(&self, now_ns: u64) -> bool {
        now_ns < self.until_ns
    }

    /// Whether the ban holds where limits only count.
    #[must_use]
    #[inline(always)]
    pub const fn is_operators(&self) -> bool {
        self.cause == Cause::Operator as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a ban ends at its exact time, and numbers and causes are one to one.
    #[test]
    fn bans_end_and_causes_have_numbers() {
        let ban = Ban { until_ns: 10, ..Ban::default() };
        assert!(ban.stands(9) && !ban.stands(10) && ban.is_operators());
        for cause in Cause::ALL {
            assert_eq!(Cause::of(*cause as u32), Some(*cause));
        }
        assert_eq!(Cause::of(Cause::ALL.len() as u32), None);
    }
}
