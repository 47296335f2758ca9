//! How a server proves over TLS that it is the one that is meant: the keys that `[[backend]]` and `[[policy.zone.primary]]`
//! share.
//!
//! Before: types fit. After: the keys contradict neither each other nor the transport; `tls` makes a verifier of them.
//! Holds: the rule for these keys. The tables hold the keys themselves: serde refuses unknown keys only in a table without
//! flattened parts, and a key that dotd does not know must be a mistake.
//! Never: reads a file.
//!
//! Source: RFC 8310 §6.4 (name and authorities), §4.2 of RFC 7858 (pins).

use std::path::Path;

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{Backend, PolicyPrimary, check::Check};

/// Octets of a SHA-256 digest.
const SHA256_OCTETS: usize = 32;

/// What a server must show.
#[derive(Clone, Copy, Debug)]
pub struct Identity<'c> {
    /// Name in its certificate; empty: no name is compared.
    pub server_name: &'c str,
    /// PEM file of the authorities for the name; empty: the system's.
    pub ca: &'c Path,
    /// Base64 SHA-256 of its public key.
    pub spki_pins: &'c [String],
}

impl Backend {
    /// What it must show over TLS.
    #[must_use]
    pub fn identity(&self) -> Identity<'_> {
        Identity { server_name: self.proved_name(), ca: &self.ca, spki_pins: &self.spki_pins }
    }
}

impl PolicyPrimary {
    /// What it must show over TLS.
    #[must_use]
    pub fn identity(&self) -> Identity<'_> {
        Identity { server_name: &self.server_name, ca: &self.ca, spki_pins: &self.spki_pins }
    }
}

impl Identity<'_> {
    /// Whether something tells the server from any other.
    fn is_known(&self) -> bool {
        !self.server_name.is_empty() || !self.spki_pins.is_empty()
    }

    /// The keys below `path` that are set.
    pub(super) fn keys(&self) -> impl Iterator<Item = &'static str> {
        let keys = [
            ("server_name", !self.server_name.is_empty()),
            ("spki_pins", !self.spki_pins.is_empty()),
            ("ca", !self.ca.as_os_str().is_empty()),
        ];
        keys.into_iter().filter_map(|(key, is_set)| is_set.then_some(key))
    }

    /// Notes every mistake in the keys below `path`. `must_prove`: the server is asked over TLS, and only if it is known.
    /// `server`: the word for it.
    pub(super) fn check(
        &self,
        check: &mut Check<'_, '_>,
        path: &str,
        (is_tls, must_prove): (bool, bool),
        server: &str,
    ) {
        let at = |key: &str| format!("{path}.{key}");
        if is_tls && must_prove && !self.is_known() {
            let message = format!("\"tls\" needs `server_name` or `spki_pins` to identify the {server}");
            check.note(&at("transport"), message);
        }
        for key in self.keys().filter(|_| !is_tls) {
            check.note(&at(key), "is used with transport = \"tls\" only; remove it");
        }
        if is_tls && self.server_name.is_empty() && !self.ca.as_os_str().is_empty() {
            check.note(
                &at("ca"),
                "verifies `server_name`, which is not set; set `server_name`, or remove this key",
            );
        }
        for (index, pin) in self.spki_pins.iter().enumerate() {
            if STANDARD.decode(pin).is_ok_and(|digest| digest.len() == SHA256_OCTETS) {
                continue;
            }
            let message =
                format!("\"{pin}\" is not Base64 of {SHA256_OCTETS} octets; `dotd pin FILE` prints one");
            check.note(&at(&format!("spki_pins.{index}")), message);
        }
    }
}
