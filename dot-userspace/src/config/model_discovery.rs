//! The shape of `[discovery]` in `dotd.toml`: what dotd says of itself to clients.
//!
//! Before: `config::load` has the file's text. After: `worker` answers by it, and `dotd discovery` prints it.
//! Never: looks at a certificate.

use serde::Deserialize;

/// `[discovery]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Discovery {
    /// Answer `_dns.resolver.arpa`, and the same of the own name (RFC 9462).
    pub ddr: bool,
    /// The name of a certificate under which clients are to ask; empty: the first one.
    pub name: String,
}

impl Default for Discovery {
    fn default() -> Self {
        Self { ddr: true, name: String::new() }
    }
}
