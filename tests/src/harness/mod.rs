//! The environment of an end-to-end test: two network namespaces, a server in one, clients in the other.
//!
//! Before: a test states its needs with `require!`. After: the test asserts on what a client saw and what dotd counted.
//! Holds: namespaces, processes, backends, clients, the capture. Never: leaves any of them behind.

pub mod acme;
pub mod acme_front;
pub mod any_certificate;
pub mod backends;
pub mod browser;
pub mod capture;
pub mod clients;
pub mod config;
pub mod dot;
pub mod engines;
pub mod flood;
pub mod message;
pub mod middlebox;
pub mod mounts;
pub mod netns;
pub mod offer;
pub mod pairs;
pub mod pki;
pub mod primaries;
pub mod process;
pub mod proxied;
pub mod raw_hello;
pub mod receivers;
pub mod require;
pub mod response;
pub mod s_client;
pub mod scene;
pub mod scratch;
pub mod scripted;
pub mod sealer;
pub mod server;
mod server_config;
pub mod servers;
pub mod session_file;
pub mod shake;
pub mod stats;
pub mod terminal;
pub mod tls_servers;
pub mod twins;

use std::{
    io::{self, ErrorKind},
    thread,
    time::{Duration, Instant},
};

/// The time after which a test gives up waiting. It only bounds a failure: no test passes or fails by a shorter time.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Calls `ask` until it returns a value.
///
/// # Panics
/// When [`DEADLINE`] has passed, naming `what`.
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = ask() {
            return found;
        }
        assert!(Instant::now() < end, "{what}: not within {DEADLINE:?}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Calls again as long as the call was interrupted.
///
/// A receive with a timeout ends with EINTR when its thread is stopped and continued (signal(7)), by a debugger, a
/// frozen cgroup or a shell. That says nothing about the peer.
///
/// # Errors
/// Those of `call`, except [`ErrorKind::Interrupted`].
pub fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            ended => return ended,
        }
    }
}
