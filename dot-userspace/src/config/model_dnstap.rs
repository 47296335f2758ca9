//! The shape of `[dnstap]` in `dotd.toml`: the reader of message copies, which messages it gets, and how much of a
//! client's address.
//!
//! Before: `config::load` has the file's text. After: `start::tap` writes by it.
//! Never: contains a default (`config::defaults` does).

use std::{net::SocketAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::ClientAddress;

/// `[dnstap]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dnstap {
    /// Unix socket of a reader; empty: none.
    pub unix: PathBuf,
    /// Address of a reader; absent or empty: none.
    #[serde(
        deserialize_with = "super::parse::optional_socket",
        serialize_with = "super::parse::socket_or_empty"
    )]
    pub tcp: Option<SocketAddr>,
    /// Permit `tcp` to an address that is not loopback: messages leave in clear.
    pub allow_cleartext: bool,
    /// The messages to copy.
    pub messages: Vec<DnstapMessages>,
    /// One query in this many is copied.
    pub sample: u32,
    /// How much of a client's address is in its messages.
    pub client_address: ClientAddress,
    /// The identity of this server; empty: none.
    pub identity: String,
}

impl Dnstap {
    /// Whether a reader is configured.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.tcp.is_some() || !self.unix.as_os_str().is_empty()
    }

    /// The reader's socket or address, as an operator writes it.
    #[must_use]
    pub fn target(&self) -> String {
        self.tcp.map_or_else(|| self.unix.display().to_string(), |address| address.to_string())
    }
}

/// One of `dnstap.messages`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DnstapMessages {
    /// Queries of clients, and the responses to them.
    Client,
    /// Queries to backends, and their responses.
    Backend,
}
