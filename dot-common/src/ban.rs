//! What the map BANS holds of a client: until when it gets nothing, why, and how often it came meanwhile.
//!
//! Before: the engine or an operator had enough of a client. After: [`crate::judge`] refuses its packets.
//! Holds: the value's shape, and who may ban. The key is a [`crate::prefix::ClientPrefix`]'s.
//! Never: reads a clock; both halves use the kernel's monotonic one.

/// One ban. 24 octets, no padding.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ban {
    /// Monotonic time in nanoseconds at which it ends.
    pub until_ns: u64,
    /// Packets that met it. XDP adds; whoever writes the ban begins at zero.
    pub hits: u64,
    /// A [`Cause`].
    pub cause: u32,
    /// Length of the client prefix in bits: a key alone does not say it.
    pub bits: u16,
    /// Tells it from the client's bans before and after it, whose hits a CPU may still owe. A ban that is made longer keeps it.
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
    /// An operator said so: holds also where limits only count.
    Operator = "operator";
    /// First octets that are no TLS, again and again.
    Garbage = "garbage";
    /// Handshakes that fail, again and again.
    Handshakes = "handshakes";
    /// Responses that it asks for and does not read.
    SlowReads = "slow_reads";
    /// Messages that cannot be cut out of their stream.
    Malformed = "malformed";
}

impl Cause {
    /// The cause of a number; an unknown one is nobody's.
    #[must_use]
    pub fn of(number: u32) -> Option<Self> {
        usize::try_from(number).ok().and_then(|number| Self::ALL.get(number)).copied()
    }
}

impl Ban {
    /// Whether it is not over yet.
    #[must_use]
    #[inline(always)]
    pub const fn stands(&self, now_ns: u64) -> bool {
        now_ns < self.until_ns
    }

    /// Whether it holds where limits only count.
    #[must_use]
    #[inline(always)]
    pub const fn is_operators(&self) -> bool {
        self.cause == Cause::Operator as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a ban ends at its moment, and numbers and causes are one to one.
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
