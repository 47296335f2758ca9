//! The shape of `[discovery]` in `dotd.toml`: how clients discover this resolver.
//!
//! Before: `config::load` has the file's text. After: `worker` answers by it, and `dotd discovery` prints it.
//! Never: reads a certificate.

use serde::{Deserialize, Serialize};

/// `[discovery]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Discovery {
    /// Answer `_dns.resolver.arpa`, and the same for the own name (RFC 9462).
    pub ddr: bool,
    /// The name of a certificate that clients should use; empty: the first one.
    pub name: String,
}

impl Default for Discovery {
    fn default() -> Self {
        Self { ddr: true, name: String::new() }
    }
}
