//! Session tickets without server state, shared by all workers.
//!
//! Before: start makes one set of keys. After: any worker resumes what another one began.
//! Holds: the current key and the one before it; a ticket lives for two rotations at most (RFC 8310 §9).
//! Never: writes a key anywhere; they are gone with the process.

use std::{fmt, sync::Arc, time::Duration};

use rustls::{crypto::aws_lc_rs::Ticketer, server::ProducesTickets, ticketer::TicketRotator};
use thiserror::Error;

/// Why there are no ticket keys.
#[derive(Debug, Error)]
#[error("no random numbers for session tickets: {0}")]
pub struct TicketsError(rustls::Error);

/// The ticket keys of this process. Clones share them, across threads and reloads.
#[derive(Clone, Debug)]
pub struct Tickets(pub(super) Arc<dyn ProducesTickets>);

/// One key of the rotation.
struct TicketKey(Arc<dyn ProducesTickets>);

impl fmt::Debug for TicketKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("TicketKey")
    }
}

impl ProducesTickets for TicketKey {
    fn enabled(&self) -> bool {
        self.0.enabled()
    }

    fn lifetime(&self) -> u32 {
        self.0.lifetime()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.0.encrypt(plain)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.0.decrypt(cipher)
    }
}

impl Tickets {
    /// Makes the first key; each is replaced after `rotation`.
    ///
    /// # Errors
    /// [`TicketsError`] without random numbers.
    pub fn new(rotation: Duration) -> Result<Self, TicketsError> {
        let seconds = u32::try_from(rotation.as_secs()).unwrap_or(u32::MAX);
        let rotator = TicketRotator::new(seconds, || {
            let key = Ticketer::new().map_err(|_| rustls::crypto::GetRandomFailed)?;
            Ok(Box::new(TicketKey(key)))
        });
        Ok(Self(Arc::new(rotator.map_err(TicketsError)?)))
    }
}
