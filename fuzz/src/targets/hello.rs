//! The first octets of a connection: the kernel's gate never drops octets that the engine would accept as a
//! ClientHello.
//!
//! Before: octets of a TCP stream, an octet that says where they are cut into segments. After: both halves have judged
//! them.
//! Holds: rustls as the reference. Never: completes a handshake.
//!
//! Source: RFC 8446 §4.1.2 and §5.1.

use std::{path::Path, sync::OnceLock, time::Duration};

use dot_common::flow::{fits_client_hello, opening};
use dot_userspace::{
    config,
    tls::{
        self, Serving, Tickets, certificate,
        dialogue::{Dialogue, Step},
        hello::is_no_record,
    },
};
use rustls::server::Acceptor;

/// Runs the target.
///
/// # Panics
/// When a ClientHello would not have passed the gate.
pub fn run(octets: &[u8]) {
    let Some((&cut, stream)) = octets.split_first() else { return };
    let segment_octets = usize::from(cut % 8) + 1;
    let mut place = 0;
    let mut fits = true;
    for segment in stream.chunks(segment_octets) {
        let length = u32::try_from(segment.len()).expect("a few");
        if let Some(part) = opening(place, length) {
            let window = &segment[part.skip as usize..][..part.count as usize];
            let word = window.iter().rev().fold(0, |word, octet| word << 8 | u64::from(*octet));
            fits &= fits_client_hello(word, &part);
        }
        place += length;
    }
    // rustls ignores the record's version (RFC 8446 §5.1); the gate accepts versions that TLS has had, up to 3.4.
    let has_version = stream.get(2).is_none_or(|minor| *minor <= 4);
    assert!(fits || !has_version || !is_client_hello(stream), "a ClientHello that the gate drops");
    if stream.first() == Some(&22) {
        converse(stream, segment_octets);
    }
}

/// The engine's side of a handshake reads the stream: it asks for more, or refuses; without a key no stream completes
/// it, and its buffer is bounded.
fn converse(stream: &[u8], piece_octets: usize) {
    let mut dialogue = Dialogue::new(serving()).expect("a sound configuration");
    // A hello of 64 KiB in single octets would only be slow.
    for piece in stream.chunks(piece_octets.max(stream.len() / 64)) {
        dialogue.inbound().extend_from_slice(piece);
        loop {
            match dialogue.step() {
                Ok(Step::Turn { .. }) => {}
                Ok(Step::Read) => break,
                Ok(Step::Done) => panic!("a handshake without a client"),
                Err(_) => return,
            }
        }
        assert!(dialogue.inbound().len() <= 160 * 1024, "{} octets are kept", dialogue.inbound().len());
    }
}

/// A self-signed certificate, made once.
fn serving() -> &'static Serving {
    static SERVING: OnceLock<Serving> = OnceLock::new();
    SERVING.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder");
        let tls = config::Config::default().tls;
        let identities =
            certificate::load_all(&tls, folder.path(), &[]).expect("a self-signed certificate").identities;
        let tickets = Tickets::new(Path::new(""), Duration::from_secs(3600)).expect("random keys");
        tls::serving(&identities, &tls, &tickets).expect("a sound configuration")
    })
}

fn is_client_hello(stream: &[u8]) -> bool {
    let is_one = rustls_accepts(stream);
    assert!(
        !is_one || (0..stream.len().min(64)).all(|end| !is_no_record(&stream[..end])),
        "refused too early"
    );
    is_one
}

fn rustls_accepts(stream: &[u8]) -> bool {
    let mut acceptor = Acceptor::default();
    let mut rest = stream;
    while !rest.is_empty() {
        if acceptor.read_tls(&mut rest).is_err() {
            return false;
        }
        match acceptor.accept() {
            Ok(Some(accepted)) => {
                // The choice of a certificate reads these; they must be valid for any accepted hello.
                let hello = accepted.client_hello();
                let names = hello.alpn().map(|names| names.map(<[u8]>::len).sum::<usize>());
                assert!(hello.server_name().is_none_or(|name| name.len() <= 255));
                assert!(names.is_none_or(|octets| octets <= stream.len()));
                return true;
            }
            Ok(None) => {}
            Err(_) => return false,
        }
    }
    false
}
