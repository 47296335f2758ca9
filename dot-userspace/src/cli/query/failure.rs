//! Why there was no connection, in words.
//!
//! Before: `wire` tried to open one. After: `outcome` gives it an exit status; `text` and `json` print it. Never: waits.

use std::{fmt, io};

/// Why there was no connection.
#[derive(Debug)]
pub(super) enum Failure {
    Unconnected(io::Error),
    NotSecure(io::Error),
    NotAuthentic,
}

impl fmt::Display for Failure {
    fn fmt(&self, form: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unconnected(error) => write!(form, "not connected: {}", plain(error)),
            Self::NotSecure(error) => write!(form, "no TLS: {}", plain(error)),
            Self::NotAuthentic => {
                form.write_str("strict profile: the server did not prove its identity; no question was sent")
            }
        }
    }
}

/// A timeout by its name: for a socket with a timeout the kernel returns "would block".
pub(super) fn plain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "timed out".to_owned(),
        io::ErrorKind::UnexpectedEof => "the server closed the connection".to_owned(),
        _ => error.to_string(),
    }
}
