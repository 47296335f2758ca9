//! What the certificates that clients can verify are valid for: names and addresses.
//!
//! Before: `certificate` loaded the identities. After: `worker` says of itself what they cover (RFC 9462).
//! Never: takes the self-signed certificate of ours, which no client can verify by a name.

use std::net::IpAddr;

use super::{certificate::Identity, self_signed};

/// What a certificate is valid for.
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
    /// What the certificates are valid for.
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

    /// The name under which clients are to ask, `wanted` or the first, with what its certificate is valid for.
    #[must_use]
    pub fn designated<'a>(all: &'a [Self], wanted: &str) -> Option<(&'a str, &'a Self)> {
        all.iter().find_map(|certified| {
            let is_it = |name: &&String| wanted.is_empty() || name.eq_ignore_ascii_case(wanted);
            certified.names.iter().find(is_it).map(|name| (name.as_str(), certified))
        })
    }
}
