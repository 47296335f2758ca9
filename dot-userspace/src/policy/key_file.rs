//! Reads the file of a TSIG key that a zone's primary server and dotd share.
//!
//! Before: `policy.zone.primary.tsig` names a file. After: the key that signs queries of transfers.
//! Holds: nothing. Never: puts the secret into an error.
//!
//! Source: the forms of tsig-keygen(8) and of the option -y of kdig(1) and dig(1).

use std::{io::Read as _, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::{disk, dns::TsigKey};

/// Most octets of such a file: a key has some hundred.
const FILE_OCTETS_MAX: u64 = 16 * 1024;
const FORM: &str = "write the file by `tsig-keygen NAME`, or as one line ALGORITHM:NAME:SECRET";

/// The key in this file.
///
/// # Errors
/// The line for the operator, with the file.
pub fn key_of(path: &Path) -> Result<TsigKey, String> {
    let mut text = String::new();
    let opened = disk::open_named(path).and_then(|file| file.take(FILE_OCTETS_MAX).read_to_string(&mut text));
    opened.map_err(|error| format!("{}: cannot be read: {error}", path.display()))?;
    key_in(&text).map_err(|what| format!("{}: {what}", path.display()))
}

/// The key in the text of such a file.
///
/// # Errors
/// What is wrong, without the secret.
pub fn key_in(text: &str) -> Result<TsigKey, String> {
    let lines = text.lines().map(|line| without_comment(line).trim());
    let text = lines.filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n");
    let is_between = |sign: char| sign.is_whitespace() || matches!(sign, '"' | ';' | '{' | '}');
    let words: Vec<_> = text.split(is_between).filter(|word| !word.is_empty()).collect();
    let (name, algorithm, secret) = match words.as_slice() {
        [line] => {
            let mut parts = line.splitn(3, ':');
            match (parts.next(), parts.next(), parts.next()) {
                (Some(algorithm), Some(name), Some(secret)) => (name, algorithm, secret),
                // kdig uses HMAC-SHA256 if no algorithm is given.
                (Some(name), Some(secret), None) => (name, "hmac-sha256", secret),
                _ => return Err(format!("is not a key: {FORM}")),
            }
        }
        ["key", name, "algorithm", algorithm, "secret", secret]
        | ["key", name, "secret", secret, "algorithm", algorithm] => (*name, *algorithm, *secret),
        _ => return Err(format!("is not a key: {FORM}")),
    };
    let secret = STANDARD.decode(secret).map_err(|_| format!("the secret is not Base64: {FORM}"))?;
    TsigKey::new(name, algorithm, &secret)
}

/// A line up to its comment. A secret may contain `//`: a comment begins only where a word could begin.
fn without_comment(line: &str) -> &str {
    let is_comment = |at: &usize| {
        let before = line.get(..*at).unwrap_or_default();
        before.is_empty() || before.ends_with([' ', '\t', ';', '{', '}'])
    };
    let comment = line.match_indices("//").map(|(at, _)| at).find(is_comment);
    comment.and_then(|at| line.get(..at)).unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: keys are read as BIND's tool and as kdig write them; an error contains no secret. Covers: C-564
    #[test]
    fn keys_are_read_in_both_forms() {
        let of_bind =
            "# a key\nkey \"k.test\" {\n\talgorithm hmac-sha256;\n\tsecret \"c2VjcmV0\"; // not this\n};\n";
        for text in [of_bind, "hmac-sha512:k.test:c2VjcmV0\n", "k.test:c2VjcmV0"] {
            assert!(key_in(text).is_ok(), "{text}");
        }
        for (text, why) in [
            ("", "is not a key"),
            ("k.test", "is not a key"),
            ("hmac-md5:k.test:c2VjcmV0", "hmac-md5"),
            ("hmac-sha256:k.test:c2Vj!cmV0", "not Base64"),
            ("key \"k\" { algorithm hmac-sha256; };", "is not a key"),
            ("hmac-sha256:k..test:c2VjcmV0", "not a domain name"),
        ] {
            let error = key_in(text).unwrap_err();
            assert!(error.contains(why) && !error.contains("c2Vj"), "{text}: {error}");
        }
    }

    /// Goal: a secret is read whole if it contains `//`, as one of fifty keys does; a comment is not part of it.
    /// Method: both forms sign the same query as the key that is made of the secret itself. Covers: C-564
    #[test]
    fn a_secret_is_no_comment() {
        let signed = |key: &TsigKey| {
            let mut message = vec![1, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 6, 0, 1];
            key.sign_query(&mut message, 1_700_000_000);
            message
        };
        let (base64, octets) = ("//8A//8A", [255, 255, 0, 255, 255, 0]);
        let expected = signed(&TsigKey::new("k.test", "hmac-sha256", &octets).unwrap());
        for text in [
            format!(
                "key \"k.test\" {{\n\talgorithm hmac-sha256; // {base64}\n\tsecret \"{base64}\";\n}};//x\n"
            ),
            format!("// of the provider\nhmac-sha256:k.test:{base64} // the key\n"),
            format!("k.test:{base64}"),
        ] {
            let key = key_in(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(signed(&key), expected, "{text}");
        }
    }
}
