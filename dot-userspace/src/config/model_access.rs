//! The shape of `[access]` in `dotd.toml`: which clients may ask.
//!
//! Before: `config::load` has the file's text. After: `config::consistency_access`, then the `policy` module alone.
//! Never: judges a client.

use std::net::SocketAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// `[access]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Access {
    /// Prefixes whose clients may ask; empty: every client.
    pub allow: Vec<IpNet>,
    /// Prefixes whose clients may not ask; it has precedence over `allow`.
    pub deny: Vec<IpNet>,
    /// Names under which dotd may be asked (SNI); empty: any, and none.
    pub server_names: Vec<String>,
    /// Names (SAN) of client certificates that may ask; empty: any.
    pub client_names: Vec<String>,
    /// What happens to clients that may not ask.
    pub denied: Denied,
    /// More lists, each for one listen address.
    pub listener: Vec<AccessListener>,
}

/// One `[[access.listener]]`: lists that are in effect beside those of `[access]`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AccessListener {
    /// An address of `[listen]`, written as there.
    pub address: SocketAddr,
    /// As in [`Access`].
    #[serde(default)]
    pub allow: Vec<IpNet>,
    /// As in [`Access`].
    #[serde(default)]
    pub deny: Vec<IpNet>,
    /// As in [`Access`].
    #[serde(default)]
    pub server_names: Vec<String>,
    /// As in [`Access`].
    #[serde(default)]
    pub client_names: Vec<String>,
}

/// `access.denied`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Denied {
    /// Connections are closed, datagrams dropped.
    Close,
    /// Every query is answered REFUSED.
    Refuse,
}
