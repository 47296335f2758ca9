//! Holds what is attached: programs, links and pins. The part of the kernel half that needs rights.
//!
//! Before: the object is loaded. After: the programs are on the interfaces that the config names, and stay there.
//! Holds: everything by which a program is attached or detached. In a running dotd the keeper has it and the engine has
//! not: the engine can say [`Attachments::look`] and [`Attachments::leave`], and name no interface, program or path.
//! Never: reads a packet, or a map's values.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{
    InterfaceReport, XdpError,
    attach::{Link, Patience, Programs},
    interface_set::InterfaceSet,
    pins::Pins,
    presence::Presence,
    report,
};

/// How the attachments stand after a look.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Look {
    /// Each interface.
    pub interfaces: Vec<InterfaceReport>,
    /// Listen addresses that no interface carries.
    pub unserved: Vec<IpAddr>,
    /// How often something was mended.
    pub repairs: u64,
}

/// What may be asked of whoever holds the attachments.
pub trait Attachments: Send {
    /// Looks whether all that should be attached is, and mends what is not; `has_news`: interfaces or addresses may have
    /// changed. Nothing, with the reason: nobody answers.
    ///
    /// # Errors
    /// Whoever holds them does not answer.
    fn look(&mut self, has_news: bool) -> Result<Look, String>;

    /// Takes everything off, for good, pins included.
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

    /// Attaches for the first time; an error when `required` and something is not. What was attached before an error goes
    /// with [`Holder::let_go`].
    pub(super) fn begin(&mut self, required: bool) -> Result<(), XdpError> {
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

    /// How it stands.
    pub(super) fn seen(&self, repairs: u64) -> Look {
        Look {
            interfaces: self.interface_set.rows(),
            unserved: self.interface_set.unserved().to_vec(),
            repairs,
        }
    }

    /// Takes everything off every interface, and removes all pins.
    ///
    /// The kernel ends a link whose pin was removed a few milliseconds later.
    pub fn let_go(&mut self) {
        // Pins first: a link goes when its last reference does, and its descriptor is the other one.
        if let Some(pins) = self.pins.take() {
            pins.remove(&self.interface_set.links());
        }
        self.interface_set.dissolve();
        self.presence = None;
        self.is_empty = true;
    }

    /// Closes every descriptor, and takes nothing off: another process holds it all. What needs a system call to end is
    /// not ended.
    pub fn forget(self) {
        for link in self.interface_set.into_links() {
            if let Link::Filter(..) = link {
                std::mem::forget(link);
            }
        }
    }

    /// Answers who asks whether a dotd is here; to be called when [`Holder::presence`] can be read.
    pub fn answer(&self) {
        if let Some(presence) = &self.presence {
            presence.answer();
        }
    }

    /// What can be read when somebody asks whether a dotd is here.
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
