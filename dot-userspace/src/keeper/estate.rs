//! State that outlives engines: the keeper holds it between one engine and the next.
//!
//! Before: `start` has bound the sockets and read the config. After: the next engine has the same
//! sockets, keys and config.
//! Holds: the listening sockets, so that the kernel queues connections while no engine accepts
//! them.
//! Never: reads the ticket keys, which `tls::Tickets` writes and reads.

use std::{mem, net::SocketAddr, os::fd::OwnedFd, path::PathBuf, time::Duration};

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::tls::Zeroizing;

/// State that outlives engines.
pub struct Estate {
    /// The config file, if the command line named one.
    pub path: Option<PathBuf>,
    /// The folder for the state that a restart keeps, if the command line named one.
    pub restart_dir: Option<PathBuf>,
    /// The text of the served config, if it came from a file.
    pub text: Option<String>,
    /// The listening sockets; `None` once dotd stops.
    pub sockets: Option<Sockets<OwnedFd>>,
    /// The program that was started.
    pub program: PathBuf,
    /// The keys of session tickets.
    pub tickets: Kept,
    /// When engines crashed, in seconds of the monotonic clock.
    pub crashes: Vec<u64>,
}

/// Listening sockets of one kind: for each address, one for each worker.
pub type Groups<T> = Vec<(SocketAddr, Vec<T>)>;

/// Every socket that outlives an engine.
#[derive(Debug, Serialize, Deserialize)]
pub struct Sockets<T> {
    /// `listen.dot`.
    pub dot: Groups<T>,
    /// `listen.do53` by TCP.
    pub do53: Groups<T>,
    /// `listen.do53` by UDP.
    pub datagrams: Groups<T>,
    /// `control.http`.
    pub http: Option<(SocketAddr, T)>,
    /// `acme.http_listen`: bound, and not listening.
    #[serde(default = "Vec::new")]
    pub acme: Vec<(SocketAddr, T)>,
    /// The folder with the accounts of `[acme]`.
    pub accounts: Option<T>,
    /// The control socket, and the folder that it is in.
    pub control: (PathBuf, T),
    /// The keeper's own socket in that folder.
    #[serde(rename = "door")]
    pub keeper_socket: T,
}

impl<T> Sockets<T> {
    /// The same sockets, each converted by `of`. Stops at the first error.
    pub(super) fn map<U, E>(&self, mut of: impl FnMut(&T) -> Result<U, E>) -> Result<Sockets<U>, E> {
        let mut groups = |groups: &Groups<T>| -> Result<Groups<U>, E> {
            let mut mapped = Vec::with_capacity(groups.len());
            for (address, sockets) in groups {
                mapped.push((*address, sockets.iter().map(&mut of).collect::<Result<Vec<_>, E>>()?));
            }
            Ok(mapped)
        };
        let (dot, do53, datagrams) = (groups(&self.dot)?, groups(&self.do53)?, groups(&self.datagrams)?);
        let http = match &self.http {
            Some((address, socket)) => Some((*address, of(socket)?)),
            None => None,
        };
        let mut acme = Vec::with_capacity(self.acme.len());
        for (address, socket) in &self.acme {
            acme.push((*address, of(socket)?));
        }
        let accounts = self.accounts.as_ref().map(&mut of).transpose()?;
        let control = (self.control.0.clone(), of(&self.control.1)?);
        let keeper_socket = of(&self.keeper_socket)?;
        Ok(Sockets { dot, do53, datagrams, http, acme, accounts, control, keeper_socket })
    }

    /// The number of workers that these sockets are for.
    #[must_use]
    pub fn workers(&self) -> usize {
        let groups = [&self.dot, &self.do53, &self.datagrams];
        groups.iter().flat_map(|groups| groups.iter()).map(|(_, sockets)| sockets.len()).max().unwrap_or(1)
    }
}

/// Octets that an engine left with the keeper, and when they arrived.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Kept {
    /// The octets as the engine sent them.
    pub octets: Vec<u8>,
    /// Milliseconds of the monotonic clock, which continues when the process runs another program.
    at_ms: u64,
}

impl Kept {
    /// Octets that have just arrived.
    #[must_use]
    pub fn now(octets: Vec<u8>) -> Self {
        Self { octets, at_ms: monotonic_ms() }
    }

    /// How long the keeper has held them.
    #[must_use]
    pub fn age(&self) -> Duration {
        Duration::from_millis(monotonic_ms().saturating_sub(self.at_ms))
    }
}

/// They are keys: they are erased before their memory is freed.
impl Drop for Kept {
    fn drop(&mut self) {
        drop(Zeroizing::new(mem::take(&mut self.octets)));
    }
}

/// Milliseconds of the monotonic clock.
pub(super) fn monotonic_ms() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
