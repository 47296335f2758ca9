//! Tests of the self-signed certificate: made once, renewed with its key, never replaced.

use std::os::unix::fs::PermissionsExt as _;

use super::*;
use x509_parser::{extensions::GeneralName, prelude::FromDer as _};

const DAY: Duration = Duration::from_secs(86_400);

/// Goal: the first start makes folder and file that only the owner reads; the second uses the same.
/// Method: mode, and pin and certificate of two calls.
#[test]
fn is_made_once() {
    let folder = tempfile::tempdir().unwrap();
    let state_dir = folder.path().join("new/state");
    let now = SystemTime::now();
    assert!(load_existing(&state_dir, now).unwrap().is_none());
    assert!(!state_dir.exists(), "a look changes nothing");
    let first = load_or_create(&state_dir, now).unwrap();
    let second = load_or_create(&state_dir, now + DAY).unwrap();
    assert_eq!((first.name.as_str(), &first.warnings), ("self-signed", &vec![]));
    assert_eq!((&first.spki_pin, &first.chain), (&second.spki_pin, &second.chain));
    assert_eq!(load_existing(&state_dir, now).unwrap().unwrap().spki_pin, first.spki_pin);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&state_dir), mode(&state_dir.join(FILE_NAME))), (0o700, 0o600));
    assert_eq!(fs::read_dir(&state_dir).unwrap().count(), 1, "no draft is left");
}

/// Goal: clients on this machine and those that know its name accept the names.
#[test]
fn names_this_machine() {
    let folder = tempfile::tempdir().unwrap();
    let identity = load_or_create(folder.path(), SystemTime::now()).unwrap();
    let (_, leaf) = x509_parser::certificate::X509Certificate::from_der(&identity.chain[0]).unwrap();
    let names = &leaf.subject_alternative_name().unwrap().unwrap().value.general_names;
    let v4 = GeneralName::IPAddress(&[127, 0, 0, 1]);
    let v6 = GeneralName::IPAddress(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    assert!(names.contains(&GeneralName::DNSName("localhost")) && names.contains(&v4) && names.contains(&v6));
    if let Some(name) = hostname() {
        assert!(identity.dns_names.contains(&name), "{name}: {:?}", identity.dns_names);
    }
}

/// Goal: near and after its end it is renewed with the same key: the pin stays (C-67). Method: later starts.
/// Covers: C-67.
#[test]
fn is_renewed_with_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let first = load_or_create(folder.path(), now).unwrap();
    for (days, is_renewed) in [(549, false), (551, true), (5000, true)] {
        let copy = tempfile::tempdir().unwrap();
        fs::copy(folder.path().join(FILE_NAME), copy.path().join(FILE_NAME)).unwrap();
        let later = load_or_create(copy.path(), now + days * DAY).unwrap();
        assert_eq!(later.spki_pin, first.spki_pin);
        assert_eq!(later.chain != first.chain, is_renewed, "after {days} days");
        assert!(later.not_after > now + (days + 200) * DAY);
        let mode = fs::metadata(copy.path().join(FILE_NAME)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
    }
}

/// Goal: `dotd check` finds no mistake in a certificate that the next start renews, before its validity (a machine
/// whose clock was or is wrong) as well as after it; the start keeps the key. Method: a check and a start at either
/// side.
/// Covers: C-67.
#[test]
fn a_look_leaves_to_the_start_what_it_renews() {
    let folder = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let first = load_or_create(folder.path(), now).unwrap();
    for then in [now - 3000 * DAY, now + 5000 * DAY] {
        assert!(load_existing(folder.path(), then).unwrap().is_none());
        assert_eq!(load_or_create(folder.path(), then).unwrap().spki_pin, first.spki_pin);
        assert!(load_existing(folder.path(), then).unwrap().is_some());
    }
}

/// Goal: a damaged file is never replaced, because its key may be pinned; the error gives the remedy.
#[test]
fn damaged_file_stays() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE_NAME);
    load_or_create(folder.path(), SystemTime::now()).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    for damaged in [&text[..text.len() / 2], "", "hello"] {
        fs::write(&path, damaged).unwrap();
        let line = load_or_create(folder.path(), SystemTime::now()).unwrap_err().to_string();
        assert!(line.ends_with("; or delete the file: dotd makes a new one, with a new pin"), "{line}");
        assert!(!line.contains('\n') && line.contains(FILE_NAME), "{line}");
        assert_eq!(fs::read_to_string(&path).unwrap(), damaged);
    }
}

/// Goal: two first starts at once end with one key. Method: sixteen threads, all pins are equal.
#[test]
fn one_of_many_first_starts_wins() {
    let folder = tempfile::tempdir().unwrap();
    let pins: Vec<_> = std::thread::scope(|scope| {
        let start = || load_or_create(folder.path(), SystemTime::now()).unwrap().spki_pin;
        let starts: Vec<_> = (0..16).map(|_| scope.spawn(start)).collect();
        starts.into_iter().map(|start| start.join().unwrap()).collect()
    });
    assert!(pins.iter().all(|pin| *pin == pins[0]), "{pins:?}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

/// Goal: a state_dir that cannot be made gives one line with the remedy. Method: a file is at its path.
#[test]
fn unwritable_state_dir_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "x").unwrap();
    let line = load_or_create(&file.join("state"), SystemTime::now()).unwrap_err().to_string();
    assert!(line.ends_with("make it writable or change `server.state_dir`"), "{line}");
    assert!(line.contains("file/state") && !line.contains('\n'), "{line}");
}
