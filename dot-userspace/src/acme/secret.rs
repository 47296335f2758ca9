//! Files with secrets that `[acme]` names: read whole, with a warning if every user may read them; and the form of a MAC key.
//!
//! Before: the config names a file. After: its text, or one line with the path that says why not.
//! Never: shows a secret in an error.
//!
//! Source: RFC 8555 §7.3.4 (the MAC key of an external account, in base64url), RFC 4648 §5.

use std::{io::Read as _, os::unix::fs::PermissionsExt as _, path::Path};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::disk;

/// The longest file that is read.
const FILE_OCTETS_MAX: u64 = 16 * 1024;
/// The permission of every user to read.
const EVERYBODY_READS: u32 = 0o004;
/// Fewest octets of a MAC key. Authorities give 32 and more.
const KEY_OCTETS_MIN: usize = 16;

/// The text of such a file, and a warning if every user of the machine may read it.
///
/// # Errors
/// It cannot be opened or read, or is longer than a secret.
pub fn read(path: &Path) -> Result<(String, Option<String>), String> {
    let unreadable = |error: std::io::Error| format!("{}: cannot be read: {error}", path.display());
    let file = disk::open_directly(path).map_err(unreadable)?;
    let mode = file.metadata().map_err(unreadable)?.permissions().mode();
    let mut text = String::new();
    file.take(FILE_OCTETS_MAX + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > FILE_OCTETS_MAX {
        return Err(format!("{}: has more than {FILE_OCTETS_MAX} octets, and is no key", path.display()));
    }
    let warning =
        || format!("{}: every user of this machine may read the key: `chmod o-rwx` it", path.display());
    Ok((text, (mode & EVERYBODY_READS != 0).then(warning)))
}

/// The MAC key in the text of the file at `path`: base64url as authorities give it, with or without the padding; the letters of plain
/// Base64 are read too.
///
/// # Errors
/// It is empty, not Base64, or too short to be a whole key.
pub fn mac_key(path: &Path, text: &str) -> Result<Vec<u8>, String> {
    let path = path.display();
    let text = text.trim().trim_end_matches('=').replace('+', "-").replace('/', "_");
    if text.is_empty() {
        return Err(format!("{path}: is empty; write the key in it that the authority gave, on one line"));
    }
    let key = URL_SAFE_NO_PAD.decode(&text);
    let key = key.map_err(|_| format!("{path}: is not one key in base64url, as the authority gives it"))?;
    if key.len() < KEY_OCTETS_MIN {
        let octets = key.len();
        return Err(format!(
            "{path}: holds {octets} octets, fewer than {KEY_OCTETS_MIN}; is it the whole key?"
        ));
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a key is read in each form that authorities and other clients write, and what is no key is said without showing it. Method: the
    /// same key in base64url, padded, in Base64, with white space around; other texts. Covers: C-810
    #[test]
    fn a_key_is_read_as_authorities_give_it() {
        let path = Path::new("/etc/dotd/eab.key");
        let whole: Vec<u8> = (0..35).map(|octet| 255 - octet).collect();
        let url = URL_SAFE_NO_PAD.encode(&whole);
        assert!(url.contains(['-', '_']), "{url}");
        let plain = url.replace('-', "+").replace('_', "/");
        for text in [url.clone(), format!("{url}="), format!("  {url}\r\n"), format!("{plain}=\n")] {
            assert_eq!(mac_key(path, &text).as_ref(), Ok(&whole), "{text}");
        }
        for text in ["\n", "a key\nand another", "secret,secret", "AAAA"] {
            let said = mac_key(path, text).unwrap_err();
            assert!(
                said.starts_with("/etc/dotd/eab.key: ")
                    && !said.contains(text.trim_end()) | text.trim().is_empty()
            );
        }
    }
}
