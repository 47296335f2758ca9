//! Holds the attachments: programs, links and pins. This part of the kernel half needs rights.
//!
//! Before: the object is loaded. After: the programs are on the interfaces that the config names, and stay there.
//! Holds: everything that can attach or detach a program. In a running dotd the keeper has it and the engine does not:
//! the engine can call [`Attachments::look`] and [`Attachments::leave`], and cannot name an interface, program or path.
//! Never: reads a packet, or the values of a map.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{
    InterfaceReport, XdpError,
    attach::{Link, Patience, Programs},
    interface_set::InterfaceSet,
    pins::Pins,
    presence::Presence,
    report, tc,
};

/// The state of all attachments.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Look {
    /// Each interface.
    pub interfaces: Vec<InterfaceReport>,
    /// Listen addresses on no interface.
    pub unserved: Vec<IpAddr>,
    /// Number of repairs.
    pub repairs: u64,
}

/// Requests to the holder of the attachments.
pub trait Attachments: Send {
    /// Checks whether everything is attached, and repairs the rest; `has_news`: interfaces or addresses may have
    /// changed.
    ///
    /// # Errors
    /// The holder does not answer.
    fn look(&mut self, has_news: bool) -> Result<Look, String>;

    /// Detaches everything for good, and removes pins.
    ///
    /// # Errors
    /// As [`Attachments::look`].
    fn leave(&mut self) -> Result<(), String>;
}

/// Programs, links and pins.
pub struct Holder {
    programs: Programs,
    interface_set: InterfaceSet,
    pins: Option<Pins>,
    presence: Option<Presence>,
    is_empty: bool,
}

impl Holder {
    pub(super) fn new(
        programs: Programs,
        interface_set: InterfaceSet,
        pins: Option<Pins>,
        presence: Option<Presence>,
    ) -> Self {
        Self { programs, interface_set, pins, presence, is_empty: false }
    }

    /// Attaches for the first time. Fails if `required` and something cannot be attached; [`Holder::let_go`] then
    /// removes what was attached before.
    ///
    /// tc filters that a predecessor left after a crash are removed first, because XDP may judge now where tc did.
    pub(super) fn begin(&mut self, required: bool) -> Result<(), XdpError> {
        tc::detach_filters()?;
        self.interface_set.look(&mut self.programs, self.pins.as_ref(), Patience::Wait)?;
        if required {
            if let Some(row) = self.interface_set.first_failure() {
                let reason = row.reason.clone().unwrap_or_else(|| "no reason given".into());
                return Err(XdpError::Interface { name: row.name.clone(), reason });
            }
            if self.interface_set.links().is_empty() {
                return Err(XdpError::Nowhere { reasons: report::reasons(&self.interface_set.rows()) });
            }
        }
        if let Some(pins) = &self.pins {
            pins.sweep(&self.interface_set.links());
        }
        Ok(())
    }

    /// The current state.
    pub(super) fn seen(&self, repairs: u64) -> Look {
        Look {
            interfaces: self.interface_set.rows(),
            unserved: self.interface_set.unserved().to_vec(),
            repairs,
        }
    }

    /// Detaches everything from every interface, and removes all pins.
    ///
    /// The kernel ends a link some milliseconds after its pin was removed.
    pub fn let_go(&mut self) {
        // Pins are removed first: a link ends with its last reference, and its descriptor is the other one.
        if let Some(pins) = self.pins.take() {
            pins.remove(&self.interface_set.links());
        }
        self.interface_set.dissolve();
        self.presence = None;
        self.is_empty = true;
    }

    /// Closes every descriptor without detaching anything: another process holds the same descriptors. Nothing is ended
    /// that needs another system call.
    pub fn forget(self) {
        for link in self.interface_set.into_links() {
            if let Link::Filter(_) = link {
                std::mem::forget(link);
            }
        }
    }

    /// Answers processes that ask whether a dotd runs here; must be called when [`Holder::presence`] is readable.
    pub fn answer(&self) {
        if let Some(presence) = &self.presence {
            presence.answer();
        }
    }

    /// Becomes readable when a process asks whether a dotd runs here.
    #[must_use]
    pub fn presence(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        self.presence.as_ref().map(std::os::fd::AsFd::as_fd)
    }
}

impl Attachments for Holder {
    fn look(&mut self, has_news: bool) -> Result<Look, String> {
        if self.is_empty {
            return Ok(Look::default());
        }
        let (programs, pins) = (&mut self.programs, self.pins.as_ref());
        let mut repairs = self.interface_set.mend(programs, pins);
        if has_news {
            match self.interface_set.look(programs, pins, Patience::None) {
                Ok(attached) => repairs += attached,
                Err(error) => tracing::warn!("xdp: {error}"),
            }
        }
        Ok(self.seen(repairs))
    }

    fn leave(&mut self) -> Result<(), String> {
        self.let_go();
        Ok(())
    }
}
