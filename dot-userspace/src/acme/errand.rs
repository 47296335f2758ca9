//! What the ACME process is to do: the part of the config that it needs.
//!
//! Before: `keeper` has the config that is served. After: the ACME process reads this from its standard input.
//! Never: is written to a disk: it may have keys.

use std::{
    io::Read as _,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::secret;
use crate::{
    config::{Acme, Config, Log, Sandbox},
    disk,
};

/// The longest of the files that an errand has.
const FILE_OCTETS_MAX: u64 = 1 << 20;

/// The part of the config for the ACME process.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Errand {
    /// `[acme]`
    pub acme: Acme,
    /// `[log]`
    pub log: Log,
    /// `server.user`
    pub user: String,
    /// `server.sandbox`
    pub sandbox: Sandbox,
    /// The folder for account, keys and certificate.
    pub folder: PathBuf,
    /// `listen.do53`
    pub do53: Vec<SocketAddr>,
    /// The content of `acme.ca`.
    pub ca: Option<String>,
    /// The content of `acme.update_tsig`.
    pub tsig: Option<String>,
    /// The content of `acme.eab_key`, or why it cannot be read: only a new account needs it.
    pub eab_key: Option<Result<String, String>>,
    /// The process that gives it, without which the ACME process ends.
    pub keeper: i32,
    /// The sockets for `acme.http_listen`.
    pub sockets: Vec<i32>,
    /// The file of the account, which the keeper has opened: no other process can.
    pub account: i32,
}

impl Errand {
    /// By a config, with the files that only the keeper may be able to read. `None`: `[acme]` is off.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn by(config: &Config) -> Result<Option<Self>, String> {
        if !config.acme.is_on() {
            return Ok(None);
        }
        Ok(Some(Self {
            acme: config.acme.clone(),
            log: config.log.clone(),
            user: config.server.user.clone(),
            sandbox: config.server.sandbox,
            folder: Acme::folder(&config.server.state_dir),
            do53: config.listen.do53.clone(),
            ca: read("acme.ca", &config.acme.ca)?,
            tsig: read_secret("acme.update_tsig", &config.acme.update_tsig).transpose()?,
            eab_key: read_secret("acme.eab_key", &config.acme.eab_key),
            keeper: 0,
            sockets: Vec::new(),
            account: 0,
        }))
    }
}

/// Warns if every user of the machine may read it.
fn read_secret(key: &str, path: &Path) -> Option<Result<String, String>> {
    if path.as_os_str().is_empty() {
        return None;
    }
    let read = secret::read(path).map_err(|error| format!("{key}: {error}"));
    Some(read.map(|(text, warning)| {
        warning.iter().for_each(|warning| tracing::warn!("{key}: {warning}"));
        text
    }))
}

fn read(key: &str, path: &Path) -> Result<Option<String>, String> {
    if path.as_os_str().is_empty() {
        return Ok(None);
    }
    let mut text = String::new();
    disk::open_directly(path)
        .and_then(|file| file.take(FILE_OCTETS_MAX).read_to_string(&mut text))
        .map_err(|error| format!("{key}: {} cannot be read: {error}", path.display()))?;
    Ok(Some(text))
}
