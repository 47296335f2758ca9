//! The folder of the ACME process: the certificate with its key, the standing, and records for the engine.
//!
//! Before: `start` has made the folder for `server.user`. After: readers find whole files, of mode 0600.
//! Never: leaves a certificate that does not fit its key, or that has ended, in the place of one that serves.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::{pace::Life, standing::Standing, words::Failure};
use crate::{
    config::ACME_CERTIFICATE,
    disk::{self, Arrival, write_whole},
    tls::{
        Zeroizing,
        certificate::{self, Identity},
    },
};

/// What the name of an account's file begins with: each directory has its own account.
pub(super) const ACCOUNT: &str = "account-";
/// What the name of the file with its contacts begins with.
const CONTACT: &str = "contact-";
/// Octets of the directory's URL in that name.
const ACCOUNT_OCTETS_MAX: usize = 120;
/// The standing.
const STANDING: &str = "standing.json";
/// Records that the engine answers with.
const SHOWN: &str = "dns-01.json";
/// A certificate that is being checked.
const DRAFT: &str = "next.pem";
/// The longest of these files that is read.
const FILE_OCTETS_MAX: u64 = 1 << 20;

/// The folder.
#[derive(Clone, Debug)]
pub(super) struct Folder(pub PathBuf);

impl Folder {
    fn certificate_path(&self) -> PathBuf {
        self.0.join(ACME_CERTIFICATE)
    }

    /// The certificate that serves, if there is one that can be used.
    pub(super) fn certificate(&self) -> Option<Identity> {
        let path = self.certificate_path();
        certificate::load(&path, &path).ok()
    }

    /// The text of its file, which begins with the key.
    pub(super) fn key(&self) -> Option<Zeroizing<String>> {
        read(&self.certificate_path()).ok().map(Zeroizing::new)
    }

    /// Checks key and chain, and puts them in the place of the certificate that serves.
    pub(super) fn replace(&self, key: &str, chain: &str, names: &[String]) -> Result<Life, Failure> {
        let text = Zeroizing::new(format!("{key}{chain}"));
        let draft = self.0.join(DRAFT);
        let unwritable =
            |error: io::Error| Failure::new(format!("{}: cannot be written: {error}", self.0.display()));
        write_whole(&draft, &text, Arrival::Replace).map_err(unwritable)?;
        let checked = check(&draft, names);
        let arrived = checked.and_then(|life| {
            write_whole(&self.certificate_path(), &text, Arrival::Replace).map_err(unwritable)?;
            Ok(life)
        });
        let _ = fs::remove_file(&draft);
        arrived
    }

    /// Removes accounts that an earlier build kept here, where the engine can read them.
    pub(super) fn remove_accounts(&self) {
        for entry in fs::read_dir(&self.0).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(ACCOUNT) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    fn path_of(&self, directory: &str) -> PathBuf {
        self.0.join(name_for(CONTACT, directory))
    }

    /// What the authority was told of `acme.contact`.
    pub(super) fn contact(&self, directory: &str) -> Option<String> {
        read(&self.path_of(directory)).ok()
    }

    /// Keeps that. If it cannot be kept, the authority is told again.
    pub(super) fn keep_contact(&self, directory: &str, text: &str) {
        let _ = write_whole(&self.path_of(directory), text, Arrival::Replace);
    }

    /// Has the engine answer with these records, by name.
    pub(super) fn show(&self, records: &BTreeMap<String, Vec<String>>) -> Result<(), Failure> {
        let text = serde_json::to_string(records).map_err(|error| error.to_string())?;
        write_whole(&shown_file(&self.0), &text, Arrival::Replace)
            .map_err(|error| Failure::new(format!("{}: cannot be written: {error}", self.0.display())))
    }

    /// The standing of an earlier process.
    pub(super) fn standing(&self) -> Standing {
        standing_in(&self.0).unwrap_or_default()
    }

    /// Keeps the standing. A disk is not written to while nothing changes.
    pub(super) fn keep_standing(&self, standing: &Standing) {
        if standing_in(&self.0).as_ref() == Some(standing) {
            return;
        }
        let text = serde_json::to_string(standing).unwrap_or_default();
        if let Err(error) = write_whole(&self.0.join(STANDING), &text, Arrival::Replace) {
            tracing::error!("acme: {}: its state cannot be kept: {error}", self.0.display());
        }
    }
}

/// The name of a directory's file.
pub(super) fn name_for(begin: &str, directory: &str) -> String {
    let sign = |letter: char| if letter.is_ascii_alphanumeric() { letter.to_ascii_lowercase() } else { '-' };
    let name: String = directory.chars().take(ACCOUNT_OCTETS_MAX).map(sign).collect();
    format!("{begin}{name}.json")
}

/// The file with the records that an ACME process has the engine answer with.
#[must_use]
pub fn shown_file(folder: &Path) -> PathBuf {
    folder.join(SHOWN)
}

/// The records in it, by name.
#[must_use]
pub fn shown_in(folder: &Path) -> BTreeMap<String, Vec<String>> {
    read(&shown_file(folder)).ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
}

/// The standing that an ACME process keeps in `folder`.
#[must_use]
pub fn standing_in(folder: &Path) -> Option<Standing> {
    serde_json::from_str(&read(&folder.join(STANDING)).ok()?).ok()
}

/// A certificate that an authority issued: it fits its key, has the names, and is valid now.
fn check(path: &Path, names: &[String]) -> Result<Life, Failure> {
    let wrong =
        |what: String| Failure::new(format!("the certificate that was issued cannot be used: {what}"));
    let identity = certificate::load(path, path).map_err(|error| wrong(error.to_string()))?;
    if let Some(error) = identity.outside_validity(SystemTime::now()) {
        return Err(wrong(error.to_string()));
    }
    if let Some(missing) = names.iter().find(|name| !has(&identity, name)) {
        return Err(wrong(format!("{missing} is not in it")));
    }
    Ok(Life { from: identity.not_before, until: identity.not_after })
}

/// Whether a certificate has this name or address.
pub(super) fn has(identity: &Identity, name: &str) -> bool {
    match name.parse() {
        Ok(address) => identity.addresses.contains(&address),
        Err(_) => identity.dns_names.iter().any(|own| own.eq_ignore_ascii_case(name)),
    }
}

fn read(path: &Path) -> io::Result<String> {
    let file: File = disk::open_own(path)?;
    let mut text = String::new();
    file.take(FILE_OCTETS_MAX).read_to_string(&mut text)?;
    Ok(text)
}
