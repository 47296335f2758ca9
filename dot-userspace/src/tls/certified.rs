//! The names and addresses of the certificates that clients can verify.
//!
//! Before: `certificate` loaded the identities. After: `worker` publishes what they cover (RFC 9462).
//! Never: contains the self-signed certificate, which no client can verify by a name.

use std::net::IpAddr;

use super::certificate::{Identity, self_signed};

/// The names and addresses of one certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certified {
    /// Names, wildcards left out.
    pub names: Vec<String>,
    /// Addresses.
    pub addresses: Vec<IpAddr>,
    /// Base64 of SHA-256 over its SubjectPublicKeyInfo.
    pub pin: String,
}

impl Certified {
    /// The entries of all certificates.
    #[must_use]
    pub fn all(identities: &[Identity]) -> Vec<Self> {
        let of_others = identities.iter().filter(|identity| identity.name != self_signed::NAME);
        let certified = of_others.map(|identity| Self {
            names: identity.dns_names.iter().filter(|name| !name.contains('*')).cloned().collect(),
            addresses: identity.addresses.clone(),
            pin: identity.spki_pin.clone(),
        });
        certified.collect()
    }

    /// The name that clients should use, `wanted` or the first, with the entry of its certificate.
    #[must_use]
    pub fn designated<'a>(all: &'a [Self], wanted: &str) -> Option<(&'a str, &'a Self)> {
        all.iter().find_map(|certified| {
            let is_it = |name: &&String| wanted.is_empty() || name.eq_ignore_ascii_case(wanted);
            certified.names.iter().find(is_it).map(|name| (name.as_str(), certified))
        })
    }
}
