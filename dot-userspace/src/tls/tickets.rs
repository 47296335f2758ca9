//! Session tickets without server state: any worker, and with a secret any node, resumes a session that another
//! began.
//!
//! Before: `start` has a rotation and perhaps a secret file. After: `serving` seals and opens tickets with the keys.
//! Holds: without a secret, random keys of this process ([`process_keys`]); with one, keys that every node derives in
//! the same way ([`shared_keys`]). A ticket lives for two rotations at most.
//! Never: writes a key anywhere but into octets for the keeper, which passes them to the next engine.
//!
//! Source: RFC 8446 §4.6.1, RFC 5077 §4, RFC 8310 §9.

mod process_keys;
mod shared_keys;

use std::{path::Path, sync::Arc, time::Duration};

use aws_lc_rs::digest::{Digest, SHA256, digest};
use rustls::server::ProducesTickets;
use thiserror::Error;

use super::{
    certificate::{CertificateError, pem},
    sessions::Sessions,
};
use process_keys::ProcessKeys;
use shared_keys::SharedKeys;

/// Fewest octets of a secret: as many as the keys that come from it.
const SECRET_OCTETS_MIN: usize = 32;

/// The reason why there are no ticket keys.
#[derive(Debug, Error)]
pub enum TicketsError {
    /// The kernel has no random numbers.
    #[error("no random numbers for session tickets")]
    Random,
    /// The secret's file cannot be read.
    #[error("tls.ticket_secret: {0}")]
    Unreadable(#[from] CertificateError),
    /// A short secret can be guessed from one ticket.
    #[error(
        "tls.ticket_secret: {path} holds {octets} octets, fewer than {SECRET_OCTETS_MIN}; make it with `openssl rand -base64 48 > {path}` and copy it to every node"
    )]
    Short {
        /// The file.
        path: String,
        /// Its octets.
        octets: usize,
    },
    /// HKDF refused.
    #[error("tls.ticket_secret: no key can be derived")]
    Derivation,
    /// Every node has the same keys.
    #[error("tls.ticket_secret: all nodes derive their keys from this file; write a new one on every node")]
    Shared,
}

/// The ticket keys, and the sessions of clients without tickets. Clones share them, across threads and reloads.
#[derive(Clone, Debug)]
pub struct Tickets {
    pub(super) keys: Arc<dyn ProducesTickets>,
    /// The same, if only this process has them.
    process_keys: Option<Arc<ProcessKeys>>,
    /// The certificates' keys and the clients' authorities at the time when the tickets were issued.
    trust: Vec<String>,
    pub(super) sessions: Arc<Sessions>,
    /// A warning about the secret's file.
    pub warning: Option<String>,
}

impl Tickets {
    /// Keys for this process only, or for all nodes that share the file `secret` (an empty path: none).
    /// Each key is replaced after `rotation`.
    ///
    /// # Errors
    /// [`TicketsError`].
    pub fn new(secret: &Path, rotation: Duration) -> Result<Self, TicketsError> {
        let sessions = Arc::new(Sessions::new(rotation));
        if secret.as_os_str().is_empty() {
            let keys = Arc::new(ProcessKeys::new(rotation).ok_or(TicketsError::Random)?);
            return Ok(Self {
                keys: Arc::clone(&keys) as Arc<dyn ProducesTickets>,
                process_keys: Some(keys),
                trust: Vec::new(),
                sessions,
                warning: None,
            });
        }
        let (octets, warning) = pem::read_secret(secret, "secret")?;
        if octets.len() < SECRET_OCTETS_MIN {
            return Err(TicketsError::Short { path: secret.display().to_string(), octets: octets.len() });
        }
        let keys = SharedKeys::new(&octets, rotation).ok_or(TicketsError::Derivation)?;
        Ok(Self { keys: Arc::new(keys), process_keys: None, trust: Vec::new(), sessions, warning })
    }

    /// The same keys, for tickets that are issued under the certificates and authorities that `trust` names.
    #[must_use]
    pub fn given_under(self, trust: Vec<String>) -> Self {
        Self { trust, ..self }
    }

    /// Whether their tickets are issued under these certificates and authorities.
    #[must_use]
    pub fn is_given_under(&self, trust: &[String]) -> bool {
        self.trust == trust
    }

    /// The process's own keys, for the next engine; empty if nodes share the keys.
    #[must_use]
    pub fn write(&self) -> Vec<u8> {
        let keys = self.process_keys.as_ref().and_then(|own| own.write());
        keys.map(|keys| [digest_of(&self.trust).as_ref(), &keys[..]].concat()).unwrap_or_default()
    }

    /// Continues with the keys that an engine wrote this long ago, if it issued tickets under the same certificates
    /// and authorities. `false`: the keys are new ones.
    pub fn read(&self, octets: &[u8], age: Duration) -> bool {
        let wanted = digest_of(&self.trust);
        let keys = octets.split_at_checked(wanted.as_ref().len());
        let keys = keys.filter(|(digest, _)| *digest == wanted.as_ref());
        keys.zip(self.process_keys.as_ref()).is_some_and(|((_, keys), own)| own.read(keys, age).is_some())
    }

    /// A number that changes with each key of the process, so that a rotation by time is noticed. `None`: nodes share
    /// the keys.
    #[must_use]
    pub fn revision(&self) -> Option<u64> {
        self.process_keys.as_ref().and_then(|own| own.revision())
    }

    /// Starts the next rotation now: a new key seals, and the last one opens until the end of that rotation.
    /// `ends_old`: the last one opens nothing any more, and no client resumes an earlier session. It takes effect on
    /// every worker at once.
    ///
    /// # Errors
    /// [`TicketsError::Shared`]: one node cannot change keys that nodes share; [`TicketsError::Random`].
    pub fn rotate(&self, ends_old: bool) -> Result<(), TicketsError> {
        let keys = self.process_keys.as_ref().ok_or(TicketsError::Shared)?;
        keys.rotate(ends_old).ok_or(TicketsError::Random)?;
        self.sessions.rotate(ends_old);
        Ok(())
    }
}

fn digest_of(trust: &[String]) -> Digest {
    digest(&SHA256, trust.join("\n").as_bytes())
}

/// No tickets at all.
#[derive(Debug)]
pub(super) struct NoTickets;

impl ProducesTickets for NoTickets {
    fn enabled(&self) -> bool {
        false
    }

    fn lifetime(&self) -> u32 {
        0
    }

    fn encrypt(&self, _: &[u8]) -> Option<Vec<u8>> {
        None
    }

    fn decrypt(&self, _: &[u8]) -> Option<Vec<u8>> {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    /// Goal: a user who reads the secret can open every ticket of all nodes: a file that every user may read causes a
    /// warning.
    /// Covers: C-303
    #[test]
    fn a_secret_that_everybody_reads_is_warned_about() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tickets");
        fs::write(&path, [7; 48]).unwrap();
        let warning = |mode| {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            Tickets::new(&path, Duration::from_secs(3600)).unwrap().warning
        };
        assert_eq!(warning(0o640), None);
        let said = warning(0o644).unwrap();
        assert!(said.ends_with("every user of this machine may read the secret: `chmod o-rwx` it"), "{said}");
    }
}
