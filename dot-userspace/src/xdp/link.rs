//! An attachment of a program to an interface.
//!
//! Before: `attach` or `tc` attached a program, or took over a predecessor's link. After: the attachment lasts as long as
//! this value, or its pin, exists. Never: attaches or pins by itself.

use aya::programs::{links::FdLink, tc::SchedClassifierLink};

/// An attachment that lasts as long as this, or its pin, exists.
pub(super) enum Link {
    /// With the name of its pin, if it has one.
    Held(FdLink, Option<String>),
    /// A tc filter, before Linux 6.6: it is removed when this value is dropped.
    #[expect(dead_code, reason = "held, not used")]
    Filter(SchedClassifierLink),
}

impl Link {
    /// The name of its pin.
    pub(super) fn pin_name(&self) -> Option<&str> {
        match self {
            Self::Held(_, name) => name.as_deref(),
            Self::Filter(_) => None,
        }
    }
}
