//! `dotd pin`: the lines that clients verify.
//!
//! Before: files, or the config's certificates. After: `pin-sha256="…"` lines in the same order.
//! Never: writes a file, needs a private key, or minds that a certificate has expired.
//!
//! Source: RFC 7858 §4.2 and its appendix A (form of a pin).

use std::path::{Path, PathBuf};

use super::error::CliError;
use crate::{config, tls::certificate};

/// A line for each file; without files, for each certificate that `dotd run` would serve.
pub(super) fn pins(files: &[PathBuf], config: Option<&Path>) -> Result<String, CliError> {
    if !files.is_empty() {
        return files.iter().map(|file| Ok(line(&certificate::pin_of_file(file)?))).collect();
    }
    let config = config::load(config)?;
    if !config.tls.certificates.is_empty() {
        let certificates = config.tls.certificates.iter();
        return certificates.map(|entry| Ok(line(&certificate::pin_of_certificate(&entry.cert)?))).collect();
    }
    let state_dir = &config.server.state_dir;
    let mut text = String::new();
    for identity in certificate::preview_all(&config.tls, state_dir) {
        let identity = identity?.ok_or_else(|| CliError::NoPin(state_dir.clone()))?;
        text += &line(&identity.spki_pin);
    }
    Ok(text)
}

/// One pin in the form of RFC 7858, with its newline.
pub(super) fn line(pin: &str) -> String {
    format!("pin-sha256=\"{pin}\"\n")
}
