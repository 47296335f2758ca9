//! What the unit tests serve a session on: a connection that a closure reads from, and limits that nothing meets.
//!
//! Before: a test says what each read gives. After: a session, which may write whatever it likes.
//! Never: touches a socket.

use std::{
    io,
    ops::Range,
    task::{Context, Poll},
    time::Duration,
};

use super::{Limits, Link};
use crate::{dns::Allowed, tls::ReadEnd};

/// What a read gives: where in the scratch the octets are, or how the connection ended.
pub type Read = Poll<Result<Range<usize>, ReadEnd>>;

/// A client that sends what the closure puts into the scratch, and takes whatever it is sent.
pub struct Scripted<F>(pub F);

impl<F: FnMut(&mut [u8]) -> Read> Link for Scripted<F> {
    fn poll_read(&mut self, _: &mut Context<'_>, scratch: &mut [u8]) -> Read {
        self.0(scratch)
    }

    fn is_mid_record(&self) -> bool {
        false
    }

    fn send(&mut self, _: &mut Context<'_>, _: &[u8], _: &mut Vec<u8>) -> io::Result<()> {
        Ok(())
    }

    fn poll_flush(&mut self, _: &mut Context<'_>, _: bool) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn unsent(&self) -> usize {
        0
    }

    async fn farewell(&mut self) -> io::Result<bool> {
        Ok(true)
    }

    fn reset(&mut self) {}

    async fn discard(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Ok(0)
    }
}

/// Limits that no test reaches.
pub fn no_limits() -> Limits {
    let long = Duration::from_secs(3600);
    Limits {
        message_timeout: long,
        write_timeout: long,
        idle_timeout: long,
        duration_max: long,
        queries_max: u64::MAX,
        in_flight_max: 256,
        padding: false,
        keepalive: false,
        allowed: Allowed::default(),
    }
}
