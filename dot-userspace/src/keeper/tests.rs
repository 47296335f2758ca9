//! Which requests of the engine the keeper accepts, and that it refuses all others.

use std::{
    io::Read as _,
    os::fd::{AsRawFd as _, OwnedFd},
    path::PathBuf,
    process::{Command, Stdio},
    thread,
};

use nix::{
    sys::{
        signal::SigSet,
        socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair},
    },
    unistd::Pid,
};
use proptest::prelude::*;

use super::{
    duty::Duty,
    engine::Engine,
    estate::{Estate, Kept},
    inherit::Serving,
    request::Keeper,
    succession::Leaving,
    words::{Answer, REQUEST_OCTETS_MAX, Request, State, VERSION},
};
use crate::config::{self, Certificate, Config};

fn pair() -> (OwnedFd, OwnedFd) {
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap()
}

/// A keeper whose config is this file, and the engine's end.
fn beside(path: PathBuf) -> (Duty, Keeper, OwnedFd) {
    let (ours, theirs) = pair();
    let config = config::load(Some(&path)).unwrap();
    let engine = Engine { pid: Pid::from_raw(i32::MAX), socket: Some(ours), user: None, is_ready: true };
    let estate = Estate {
        path: Some(path),
        restart_dir: None,
        text: None,
        sockets: None,
        program: "/nowhere".into(),
        tickets: Kept::default(),
        crashes: Vec::new(),
    };
    let duty = Duty::new(engine, estate, &config, SigSet::empty()).unwrap();
    let raw = theirs.try_clone().unwrap();
    (duty, Keeper::new(theirs, Pid::this()), raw)
}

/// A config that names these keys.
fn text(keys: &[&PathBuf]) -> String {
    let entries = keys.iter().map(|key| format!("{{ cert = \"{0}\", key = \"{0}\" }}", key.display()));
    format!("[tls]\ncertificates = [{}]\n", entries.collect::<Vec<_>>().join(", "))
}

/// Two keys, and a config that names the first of them.
fn two_keys(scratch: &tempfile::TempDir) -> [PathBuf; 3] {
    let [one, other, file] = ["one.pem", "other.pem", "dotd.toml"].map(|name| scratch.path().join(name));
    std::fs::write(&one, "one").unwrap();
    std::fs::write(&other, "other").unwrap();
    std::fs::write(&file, text(&[&one])).unwrap();
    [one, other, file]
}

/// Goal: the engine opens only files that the config names, as the keeper read it: not by another
/// path to the same file, and not after a config without the file is served. Method: two keys, of
/// which the config names one; then the config names the other.
///
#[test]
fn only_what_the_config_names_is_opened() {
    let scratch = tempfile::tempdir().unwrap();
    let [one, other, file] = two_keys(&scratch);
    let (mut duty, keeper, _raw) = beside(file.clone());
    let serving = thread::spawn(move || duty.answer_until_closed());
    keeper.greet().unwrap();
    let content = |path: &PathBuf| {
        keeper.open(path).map(|opened| {
            let mut text = String::new();
            opened.map(|mut file| file.read_to_string(&mut text).map(|_| text).unwrap()).unwrap()
        })
    };
    assert_eq!(content(&one).as_deref(), Some("one"));
    assert!(content(&other).is_none() && content(&scratch.path().join("x/../one.pem")).is_none());
    // The new config has been read but is not served yet: both files can be opened.
    std::fs::write(&file, text(&[&other])).unwrap();
    assert_eq!(keeper.config().unwrap().as_deref(), Some(&*text(&[&other])));
    assert_eq!((content(&one).as_deref(), content(&other).as_deref()), (Some("one"), Some("other")));
    keeper.adopt();
    assert!(content(&one).is_none() && content(&other).is_some());
    std::fs::remove_file(&other).unwrap();
    let gone = keeper.open(&other).expect("it is named").unwrap_err();
    assert_eq!(gone.kind(), std::io::ErrorKind::NotFound);
    drop((keeper, _raw));
    serving.join().unwrap();
}

/// Goal: a config that the engine has refused leaves nothing with the keeper: the files that only it names are not opened afterwards, and
/// its text is never the one that the next engine serves by. Method: a config is read and not served, the reload ends; then a message
/// that the config read last is served.
#[test]
fn a_refused_config_is_forgotten() {
    let scratch = tempfile::tempdir().unwrap();
    let [one, other, file] = two_keys(&scratch);
    let (mut duty, keeper, raw) = beside(file.clone());
    duty.estate.text = Some(text(&[&one]));
    let serving = thread::spawn(move || {
        duty.answer_until_closed();
        duty
    });
    keeper.greet().unwrap();
    std::fs::write(&file, text(&[&other])).unwrap();
    keeper.config().unwrap();
    assert!(keeper.open(&other).is_some());
    keeper.notify(State::Ready);
    assert!(keeper.open(&one).is_some() && keeper.open(&other).is_none());
    std::fs::write(&file, "nonsense").unwrap();
    keeper.config().unwrap();
    std::fs::remove_file(&file).unwrap();
    assert!(keeper.config().is_err());
    keeper.adopt();
    assert!(keeper.open(&one).is_some() && keeper.open(&other).is_none());
    drop((keeper, raw));
    assert_eq!(serving.join().unwrap().estate.text, Some(text(&[&one])));
}

/// Goal: the keeper answers or refuses any packet, and goes on. Method: packets of every length and
/// content, requests of later versions, answers that are not read; then a valid request. Covers:
///
#[test]
fn nonsense_is_refused_and_the_next_question_answered() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("dotd.toml");
    std::fs::write(&file, "").unwrap();
    let (mut duty, keeper, raw) = beside(file);
    let serving = thread::spawn(move || duty.answer_until_closed());
    let long = vec![b'O'; REQUEST_OCTETS_MAX + 100];
    for packet in [&b"X"[..], b"L\x02", b"O\0", b"O\0a\0b", b"N\x09", b"V", &long] {
        send(raw.as_raw_fd(), packet, MsgFlags::MSG_NOSIGNAL).unwrap();
        assert!(matches!(Answer::receive(&raw), Ok(Some(Answer::Refused(_)))), "{packet:?}");
    }
    drop((keeper, raw));
    serving.join().unwrap();
}

/// Goal: unread answers do not block the keeper. Method: requests without end, watched by a second
/// thread; the keeper ends when the pair is closed.
#[test]
fn unread_answers_do_not_hold_the_keeper() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("dotd.toml");
    std::fs::write(&file, "").unwrap();
    let (mut duty, keeper, raw) = beside(file);
    let serving = thread::spawn(move || duty.answer_until_closed());
    for _ in 0..10_000 {
        let packet = Request::Look { has_news: false }.encode();
        send(raw.as_raw_fd(), &packet, MsgFlags::MSG_NOSIGNAL).unwrap();
    }
    drop((keeper, raw));
    serving.join().unwrap();
}

/// Goal: the keeper refuses another protocol version and says so. Method: a version that does not
/// exist.
#[test]
fn another_version_is_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("dotd.toml");
    std::fs::write(&file, "").unwrap();
    let (mut duty, keeper, raw) = beside(file);
    let serving = thread::spawn(move || duty.answer_until_closed());
    send(raw.as_raw_fd(), &Request::Hello(VERSION + 1).encode(), MsgFlags::MSG_NOSIGNAL).unwrap();
    let Ok(Some(Answer::Refused(reason))) = Answer::receive(&raw) else { panic!("refused") };
    assert_eq!(reason, format!("the keeper speaks version {VERSION}, the engine {}", VERSION + 1));
    drop((keeper, raw));
    serving.join().unwrap();
}

/// Goal: once an engine has ended, nothing arrives at the next one through its passage, even if
/// that engine gave a descriptor of it to another process; what it sent before arrives. Method: a
/// copy of its end stays open here.
#[test]
fn a_passage_ends_with_its_engine() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("dotd.toml");
    std::fs::write(&file, "").unwrap();
    let (mut duty, _keeper, _raw) = beside(file);
    let (from, to) = super::passage().unwrap();
    let copy = from.try_clone().unwrap();
    let say = |word: &[u8]| send(copy.as_raw_fd(), word, MsgFlags::MSG_NOSIGNAL);
    say(b"before").unwrap();
    // It waits for an end of its input that never comes, so only the signal that tells an engine to
    // leave ends it.
    let mut engine = Command::new("sh");
    let mut engine = engine.args(["-c", "read -r line"]).stdin(Stdio::piped()).spawn().unwrap();
    let (ours, _theirs) = pair();
    let pid = i32::try_from(engine.id()).unwrap();
    duty.leaving =
        Some(Leaving::of((Serving { pid, socket: -1, user: None, words: VERSION }, ours)).by(Some(from)));
    duty.note_ready();
    let leaving = duty.leaving.take().unwrap();
    assert!(matches!(duty.answer_leaving(&Request::IsSucceeded, &leaving), Answer::Done(Some(_))));
    duty.leaving = Some(leaving);
    while duty.leaving.is_some() {
        let _ = duty.look_at_engines();
        thread::yield_now();
    }
    assert!(engine.wait().is_err(), "the keeper has read its end");
    assert!(say(b"after").is_err());
    let mut packet = [0; 16];
    let mut hear = || recv(to.as_raw_fd(), &mut packet, MsgFlags::empty());
    assert_eq!((hear(), hear()), (Ok(6), Ok(0)));
}

/// Goal: the keeper can open every file that a reload reads. Method: a config that names one file
/// of each kind.
#[test]
fn every_kind_of_file_is_named() {
    let mut config = Config::default();
    let entry = Certificate { cert: "/a".into(), key: "/b".into(), ocsp: "/c".into() };
    config.tls.certificates.push(entry);
    (config.tls.client_ca, config.tls.ticket_secret) = ("/d".into(), "/e".into());
    let named: Vec<_> = super::duty::named(&config).iter().map(|path| path.display().to_string()).collect();
    assert_eq!(named, ["/a", "/b", "/c", "/d", "/e"]);
}

proptest! {
    /// Goal: encoding and decoding a request gives the same request; any octets either decode to a
    /// request that encodes to them, or are rejected.
    #[test]
    fn requests_survive_their_form(octets in prop::collection::vec(any::<u8>(), 0..64), news: bool, path in "[^\0]{1,50}") {
        if let Some(request) = Request::decode(&octets) {
            prop_assert_eq!(request.encode(), octets.clone());
        }
        for request in [
            Request::Hello(VERSION),
            Request::Look { has_news: news },
            Request::Leave,
            Request::Notify(State::Stopping),
            Request::ReadConfig,
            Request::Adopt,
            Request::IsSucceeded,
            Request::Open(path.into()),
            Request::Keep(octets.clone()),
        ] {
            prop_assert_eq!(Request::decode(&request.encode()), Some(request));
        }
    }
}

/// Goal: what an engine says for `systemctl status` is no assignment of another kind, and has a bound. Method: a text with line
/// ends, and one that is too long.
#[test]
fn a_status_is_one_line() {
    let decoded = |text: &str| Request::decode(&Request::Alive(text.into()).encode());
    assert_eq!(decoded("5 connections"), Some(Request::Alive("5 connections".into())));
    assert_eq!(decoded("x\nMAINPID=1\r\0"), Some(Request::Alive("x MAINPID=1  ".into())));
    assert_eq!(decoded(&"x".repeat(257)), None);
}
