//! Tests of certificate files: what is refused and its line, what is only warned about, and the pin.

use std::{fs, path::PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    PKCS_ECDSA_P384_SHA384, PKCS_ED25519,
};
use tempfile::TempDir;

use super::*;

const DAY: Duration = Duration::from_secs(86_400);

/// A folder with files in it.
struct Files {
    folder: TempDir,
}

impl Files {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }
}

/// A certificate that was valid since yesterday and is for 90 days, with changes.
fn issue(key: &KeyPair, change: impl FnOnce(&mut CertificateParams)) -> String {
    params(change).self_signed(key).unwrap().pem()
}

fn params(change: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    let mut params = CertificateParams::new(vec!["dns.example".to_owned()]).unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + (now - DAY);
    params.not_after = epoch + (now + 90 * DAY);
    change(&mut params);
    params
}

/// The line of an error, with the folder cut away.
fn line(files: &Files, error: &CertificateError) -> String {
    let line = error.to_string();
    assert!(!line.contains('\n'), "{line}");
    line.replace(&format!("{}/", files.folder.path().display()), "")
}

/// Goal: a good pair loads with its name, names, end and pin; every kind of key that we promise works.
/// Method: the pin is computed again from the key's public half as rcgen gives it.
#[test]
fn loads_a_good_pair() {
    for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
        let (files, key) = (Files::new(), KeyPair::generate_for(algorithm).unwrap());
        let cert = files.write("cert.pem", issue(&key, |_| {}));
        let secret = files.write("key.pem", key.serialize_pem());
        fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let identity = load(&cert, &secret).unwrap();
        assert_eq!(identity.name, cert.display().to_string());
        assert_eq!(identity.dns_names, ["dns.example"]);
        assert_eq!(identity.warnings, [""; 0]);
        let left = identity.not_after.duration_since(SystemTime::now()).unwrap();
        assert!(left > 89 * DAY && left < 91 * DAY);
        let (_, spki) = x509_parser::pem::parse_x509_pem(key.public_key_pem().as_bytes()).unwrap();
        assert_eq!(identity.spki_pin, pin(&spki.contents));
        assert_eq!(pin_of_file(&cert).unwrap(), identity.spki_pin, "of the certificate");
        assert_eq!(pin_of_file(&secret).unwrap(), identity.spki_pin, "of the key, as a backup pin");
    }
}

/// Goal: the pin survives renewal with the same key, and a new key has a new one. Covers: C-67.
#[test]
fn pin_belongs_to_the_key() {
    let (files, key) = (Files::new(), KeyPair::generate().unwrap());
    let first = files.write("first.pem", issue(&key, |_| {}));
    let renewed = files.write("renewed.pem", issue(&key, |params| params.not_after += DAY));
    let other = files.write("other.pem", issue(&KeyPair::generate().unwrap(), |_| {}));
    assert_eq!(pin_of_file(&first).unwrap(), pin_of_file(&renewed).unwrap());
    assert_ne!(pin_of_file(&first).unwrap(), pin_of_file(&other).unwrap());
}

/// Goal: each broken file ends in one line that names it and the way out. Method: exact lines.
#[test]
fn each_broken_file_has_its_line() {
    let (files, key) = (Files::new(), KeyPair::generate().unwrap());
    let good = issue(&key, |_| {});
    let cert = files.write("cert.pem", &good);
    let secret = files.write("key.pem", key.serialize_pem());
    files.write("empty.pem", " \n");
    files.write("text.pem", "hello");
    files.write("cut.pem", &good[..good.len() / 2]);
    files.write("damaged.pem", good.replacen('\n', "\n!!!!", 1));
    files.write("request.pem", good.replace("CERTIFICATE", "CERTIFICATE REQUEST"));
    files.write("encrypted.pem", key.serialize_pem().replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY"));
    files.write("not-asn1.pem", "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n");
    files.write("not-a-key.pem", "-----BEGIN PRIVATE KEY-----\naGVsbG8=\n-----END PRIVATE KEY-----\n");
    files.write("large.pem", vec![b'a'; (1 << 20) + 1]);
    fs::create_dir(files.folder.path().join("folder")).unwrap();
    let at = |name: &str| files.folder.path().join(name);
    for (name, expected) in [
        ("absent.pem", "absent.pem: no such file: put it there or correct its name in the config"),
        ("folder", "folder: is not a regular file: name one"),
        (
            "large.pem",
            "large.pem: larger than 1048576 octets, too large for a PEM chain: name the right file",
        ),
        ("empty.pem", "empty.pem: is empty: was a renewal interrupted? write it again"),
        ("text.pem", "text.pem: is not PEM: convert it with"),
        ("cut.pem", "cut.pem: PEM block is cut off or damaged (no END line): write the file again"),
        ("damaged.pem", "damaged.pem: PEM block is cut off or damaged (not Base64): write the file again"),
        ("request.pem", "request.pem: holds no certificate but a request for one: have it signed first"),
        ("key.pem", "key.pem: holds no certificate but a key: are `cert` and `key` swapped?"),
        ("not-asn1.pem", "not-asn1.pem: not a certificate that TLS can use ("),
    ] {
        let line = line(&files, &load(&at(name), &secret).unwrap_err());
        assert!(line.starts_with(expected), "{name}: {line}");
    }
    for (name, expected) in [
        ("absent.pem", "absent.pem: no such file"),
        ("cert.pem", "cert.pem: holds no private key but a certificate: are `cert` and `key` swapped?"),
        ("encrypted.pem", "encrypted.pem: is encrypted, and dotd cannot ask for a passphrase"),
        ("not-a-key.pem", "not-a-key.pem: not a key that dotd can use"),
    ] {
        let line = line(&files, &load(&cert, &at(name)).unwrap_err());
        assert!(line.starts_with(expected), "{name}: {line}");
    }
}

/// Goal: a file with a part that a PEM parser would skip, and a file in another format, are reported as what they
/// are, by the loader and by the pin: none of them may be served in part. Method: an intermediate whose BEGIN line is
/// joined to the line before, byte order marks, PKCS#12, an encrypted key; exact lines. Covers: C-302
#[test]
fn other_forms_are_named() {
    let (files, key) = (Files::new(), KeyPair::generate().unwrap());
    let good = issue(&key, |_| {});
    let secret = files.write("key.pem", key.serialize_pem());
    files.write("joined.pem", good.trim_end().to_owned() + &good);
    files.write("indented.pem", format!("{good}  {good}"));
    files.write("marked.pem", [b"\xef\xbb\xbf", good.as_bytes()].concat());
    files.write(
        "utf16.pem",
        good.encode_utf16().flat_map(u16::to_le_bytes).fold(vec![0xff, 0xfe], |mut all, octet| {
            all.push(octet);
            all
        }),
    );
    let front =
        [0x30, 0x82, 4, 0, 2, 1, 3, 0x30, 0x82, 3, 0xc6, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 1];
    files.write("both.p12", [&front[..], &[0xa0; 1000]].concat());
    files.write("encrypted.pem", key.serialize_pem().replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY"));
    let at = |name: &str| files.folder.path().join(name);
    let joined = "PEM block is cut off or damaged (a BEGIN line does not start on a line of its own: were two files joined without a newline?)";
    let mark = "begins with a byte order mark, which hides its first line: save it as UTF-8 without one";
    let pkcs12 = "is PKCS#12: convert it with `openssl pkcs12";
    for (name, expected) in [
        ("joined.pem", joined),
        ("indented.pem", joined),
        ("marked.pem", mark),
        ("utf16.pem", mark),
        ("both.p12", pkcs12),
    ] {
        let expected = format!("{name}: {expected}");
        for error in [
            load(&at(name), &secret).map(|_| ()).unwrap_err(),
            pin_of_certificate(&at(name)).map(|_| ()).unwrap_err(),
            pin_of_file(&at(name)).map(|_| ()).unwrap_err(),
        ] {
            let line = line(&files, &error);
            assert!(line.starts_with(&expected), "{line}");
        }
    }
    let cert = files.write("cert.pem", &good);
    for (name, expected) in [("marked.pem", mark), ("both.p12", pkcs12)] {
        let line = line(&files, &load(&cert, &at(name)).unwrap_err());
        assert!(line.starts_with(&format!("{name}: {expected}")), "{line}");
    }
    let encrypted = "encrypted.pem: is encrypted, and dotd cannot ask for a passphrase";
    let said = line(&files, &pin_of_file(&at("encrypted.pem")).unwrap_err());
    assert!(said.starts_with(encrypted), "{said}");
    let said = line(&files, &load(&at("encrypted.pem"), &secret).unwrap_err());
    assert!(said.contains("holds no certificate but an encrypted key"), "{said}");
    let said = line(&files, &pin_of_certificate(&secret).unwrap_err());
    assert_eq!(said, "key.pem: holds no certificate but a key: are `cert` and `key` swapped?");
}

/// Goal: a key that is not the leaf's is refused, and a leaf that stands second is recognised.
#[test]
fn refuses_another_key() {
    let (files, key, other) = (Files::new(), KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let cert = files.write("cert.pem", issue(&key, |_| {}));
    let secret = files.write("other.pem", other.serialize_pem());
    let refused = line(&files, &load(&cert, &secret).unwrap_err());
    assert_eq!(
        refused,
        "other.pem is not the key of cert.pem: name the key that the certificate was issued for"
    );
    let both = files.write("both.pem", issue(&key, |_| {}) + &issue(&other, |_| {}));
    let refused = line(&files, &load(&both, &secret).unwrap_err());
    assert_eq!(
        refused,
        "other.pem is the key of certificate 2 in both.pem: put the server's own certificate first"
    );
}

/// Goal: times before and after a certificate's validity are reported, times within it are not.
/// Method: the same pair at four times. Covers: C-69.
#[test]
fn knows_its_life() {
    let (files, key) = (Files::new(), KeyPair::generate().unwrap());
    let cert = files.write("cert.pem", issue(&key, |_| {}));
    let secret = files.write("key.pem", key.serialize_pem());
    let (now, identity) = (SystemTime::now(), load(&cert, &secret).unwrap());
    let at = |time| identity.outside_validity(time).map(|error| line(&files, &error));
    let early = at(now - 2 * DAY).unwrap();
    assert!(early.starts_with("cert.pem: not valid before ") && early.contains("clock"), "{early}");
    let late = at(now + 91 * DAY).unwrap();
    assert!(late.starts_with("cert.pem: expired on ") && late.ends_with(": renew it"), "{late}");
    let end = identity.not_after;
    assert_eq!(at(end), None, "the last second counts (RFC 5280 §4.1.2.5)");
    assert!(at(end + Duration::from_secs(1)).is_some());
    let warned = |time| load_at(&cert, &secret, time).unwrap().warnings;
    let ends = |warnings: &[String]| warnings.iter().any(|warning| warning.contains("renew it now"));
    let warnings = warned(end - DAY);
    assert!(
        warnings.iter().any(|warning| warning.ends_with("ends in 24 hours: renew it now")),
        "{warnings:?}"
    );
    assert!(!ends(&warned(now)) && !ends(&warned(end + DAY)), "it has ended");
}

/// Goal: keys and signatures that clients do not trust are refused. Method: certificates made by openssl,
/// because rcgen makes none like these. Covers: C-69.
#[test]
fn refuses_weak() {
    let files = Files::new();
    let key = files.write("key.pem", KeyPair::generate().unwrap().serialize_pem());
    for (text, reason) in [
        (include_str!("weak/rsa-1024.pem"), "RSA key of 1024 bits, at least 2048"),
        (include_str!("weak/sha-1.pem"), "signed with SHA-1"),
    ] {
        let cert = files.write("cert.pem", text);
        let line = line(&files, &load(&cert, &key).unwrap_err());
        assert!(line.starts_with(&format!("cert.pem: too weak ({reason}): ")), "{line}");
    }
}

/// Goal: a certificate that works but will cause trouble gets a warning at start. Covers: C-69.
#[test]
fn warns_about_the_doubtful() {
    let (files, key) = (Files::new(), KeyPair::generate().unwrap());
    let secret = files.write("key.pem", key.serialize_pem());
    fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let warnings_of = |text: &str| load(&files.write("cert.pem", text), &secret).unwrap().warnings;
    let assert_warned = |text: String, wanted: &str| {
        let warnings = warnings_of(&text);
        assert!(warnings.iter().any(|warning| warning.contains(wanted)), "{wanted}: {warnings:?}");
    };
    assert_warned(issue(&key, |_| {}), "every user of this machine may read the key");
    assert_warned(issue(&key, |params| params.subject_alt_names.clear()), "no subjectAltName");
    let for_clients = |params: &mut CertificateParams| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    };
    assert_warned(issue(&key, for_clients), "not for servers");
    let stranger = issue(&KeyPair::generate().unwrap(), |params| {
        params.distinguished_name.push(rcgen::DnType::CommonName, "a stranger");
    });
    assert_warned(issue(&key, |_| {}) + &stranger, "certificate 2 of the chain did not issue the one before");
}

/// Goal: a chain in the right order gets no warning; one with an expired issuer does, and so does a leaf without the
/// issuer that signed it. Covers: C-301
#[test]
fn looks_at_the_chain() {
    let (files, key) = (Files::new(), KeyPair::generate().unwrap());
    let secret = files.write("key.pem", key.serialize_pem());
    fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let authority_key = KeyPair::generate().unwrap();
    let chain_of = |end: fn(&mut CertificateParams)| {
        let authority = params(|params| {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.distinguished_name.push(rcgen::DnType::CommonName, "an authority");
            end(params);
        });
        let authority_pem = authority.self_signed(&authority_key).unwrap().pem();
        let issuer = Issuer::new(authority, &authority_key);
        params(|_| {}).signed_by(&key, &issuer).unwrap().pem() + &authority_pem
    };
    let good = files.write("good.pem", chain_of(|_| {}));
    assert_eq!(load(&good, &secret).unwrap().warnings, [""; 0]);
    let alone = chain_of(|_| {}).split_inclusive("-----END CERTIFICATE-----\n").next().unwrap().to_owned();
    let warnings = load(&files.write("alone.pem", alone), &secret).unwrap().warnings;
    assert!(
        warnings[0].contains("holds no certificate but the server's own")
            && warnings[0].contains("an authority"),
        "{warnings:?}"
    );
    let ended = files.write("ended.pem", chain_of(|params| params.not_after = params.not_before));
    let warnings = load(&ended, &secret).unwrap().warnings;
    assert!(warnings[0].ends_with("certificate 2 of the chain is not valid now"), "{warnings:?}");
}

/// Two entries with sound files.
fn two(files: &Files) -> config::Tls {
    let key = KeyPair::generate().unwrap();
    let entry = |name: &str| config::Certificate {
        cert: files.write(&format!("{name}.pem"), issue(&key, |_| {})),
        key: files.write(&format!("{name}.key"), key.serialize_pem()),
        ocsp: PathBuf::new(),
    };
    config::Tls { certificates: vec![entry("one"), entry("two")], ..config::Tls::default() }
}

/// Goal: the certificates of a config are loaded in its order; one that cannot be used does not prevent the others
/// from loading, and its previous identity stays, unless all must be usable. Method: a missing key, with and without
/// a previous identity; an entry that has changed, beside a good one and alone.
#[test]
fn one_fault_keeps_no_other_back() {
    let files = Files::new();
    let nowhere = files.folder.path().join("nowhere");
    let mut tls = two(&files);
    let before = load_all(&tls, &nowhere, &[]).unwrap();
    let names = |loaded: &Loaded| -> Vec<String> {
        loaded
            .identities
            .iter()
            .map(|identity| identity.name.rsplit('/').next().unwrap().to_owned())
            .collect()
    };
    assert_eq!((names(&before), before.faults.len()), (vec!["one.pem".into(), "two.pem".into()], 0));
    assert!(!nowhere.exists(), "no self-signed certificate beside configured ones");
    fs::remove_file(&tls.certificates[0].key).unwrap();
    let at_start = load_all(&tls, &nowhere, &[]).unwrap();
    assert_eq!((names(&at_start), at_start.faults.len()), (vec!["two.pem".into()], 1));
    let said = at_start.faults[0].to_string();
    assert!(said.contains("one.key: no such file") && said.ends_with("; it is not served"), "{said}");
    let later = load_all(&tls, &nowhere, &before.identities).unwrap();
    assert_eq!(names(&later), ["one.pem", "two.pem"]);
    assert!(later.has_new() && later.faults[0].to_string().ends_with("; the previous certificate is served"));
    tls.strict = true;
    assert!(matches!(load_all(&tls, &nowhere, &before.identities), Err(CertificateError::Missing { .. })));
    assert!(load_again(&tls, &nowhere, &before.identities).is_ok(), "what is served goes on");
    tls.strict = false;
    let previews = preview_all(&tls, &nowhere);
    assert!(previews[0].is_err() && previews[1].is_ok());
    tls.certificates.truncate(1);
    let alone = load_all(&tls, &nowhere, &before.identities).unwrap();
    assert!(names(&alone) == ["one.pem"] && !alone.has_new());
    assert!(matches!(load_all(&tls, &nowhere, &[]), Err(CertificateError::Missing { .. })));
    tls.certificates[0].key = files.folder.path().join("other.key");
    let changed = load_all(&tls, &nowhere, &before.identities);
    assert!(matches!(changed, Err(CertificateError::Missing { .. })), "a mistake of the config");
}

/// Goal: dates prevent a certificate from being served only if the config demands that. Method: one that has expired,
/// and one that is not valid yet.
#[test]
fn dates_end_nothing_unless_demanded() {
    let (files, key) = (Files::new(), KeyPair::generate().unwrap());
    for (from, to) in [(2001, 2002), (2124, 2125)] {
        let issued = issue(&key, |params| {
            params.not_before = rcgen::date_time_ymd(from, 1, 1);
            params.not_after = rcgen::date_time_ymd(to, 1, 1);
        });
        let entry = config::Certificate {
            cert: files.write("cert.pem", issued),
            key: files.write("key.pem", key.serialize_pem()),
            ocsp: PathBuf::new(),
        };
        let mut tls = config::Tls { certificates: vec![entry], ..config::Tls::default() };
        let loaded = load_all(&tls, files.folder.path(), &[]).unwrap();
        assert!(
            loaded.identities[0].outside_validity(SystemTime::now()).is_some() && loaded.faults.is_empty()
        );
        tls.strict = true;
        load_all(&tls, files.folder.path(), &[]).unwrap_err();
    }
}
