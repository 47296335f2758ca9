//! Asks a backend one question, over the transport that clients' queries take.
//!
//! Before: `health` looks whether a backend is there, `dotd check --connect` whether it would be, or `start` asks for addresses.
//! After: the answer, or the reason why no answer came.
//! Holds: how many messages came that were no answer, and what was wrong with the last one.
//! Never: judges an rcode: any answer counts, also an error without the question. Takes longer than twice the timeout of a
//! query.

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::UdpSocket,
    time::timeout,
};

use super::{
    BackendConfig,
    dial::{NotOpened, Opened, dial},
    matching::{Unmatched, fit},
    random::Random,
};
use crate::{config::Transport, dns::framing::append_message, proxy};

/// The question `. NS IN`: every resolver has the answer, and other servers refuse it as cheaply.
const QUESTION: [u8; 5] = [0, 0, 2, 0, 1];

/// Why there was no answer.
#[derive(Debug, Error)]
pub enum Missed {
    /// No connection, or no TLS on it.
    #[error(transparent)]
    NotOpened(#[from] NotOpened),
    /// Nothing came, or the connection ended.
    #[error("no answer: {0}")]
    Unanswered(io::Error),
    /// Only messages came that are no answers.
    #[error("no answer that fits; {0}")]
    Unmatched(Seen),
}

/// Messages that were no answer.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    count: u64,
    last: Unmatched,
}

impl fmt::Display for Seen {
    fn fmt(&self, form: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(form, "unmatched: {}, last: {}", self.count, self.last)
    }
}

/// A probe under way: its query, and the message that was no answer to it.
struct Asking<'a> {
    backend: &'a BackendConfig,
    query: Vec<u8>,
    seen: Option<Seen>,
}

/// Sends one query and waits for its answer, which has this rcode.
///
/// # Errors
/// [`Missed`].
///
/// # Cancel safety
/// Dropping the future closes the socket.
pub async fn probe(backend: &BackendConfig) -> Result<u8, Missed> {
    let answer = ask(backend, query()).await?;
    Ok(answer.get(3).map_or(0, |flags| flags & 0xf))
}

/// Sends `query`, a question without an OPT record, under an ID of its own, and waits for its answer.
///
/// # Errors
/// [`Missed`].
///
/// # Cancel safety
/// Dropping the future closes the socket.
pub async fn ask(backend: &BackendConfig, mut query: Vec<u8>) -> Result<Vec<u8>, Missed> {
    let id = Random::default().u16().ok_or_else(|| io::Error::other("no random numbers"));
    query.splice(..2, id.map_err(Missed::Unanswered)?.to_be_bytes());
    let mut asking = Asking { backend, query, seen: None };
    let answer = if backend.transport == Transport::Udp {
        timeout(backend.timeout, asking.over_udp()).await
    } else {
        match dial(backend, backend.timeout, None).await? {
            Opened::Clear(mut tcp) => timeout(backend.timeout, asking.over_stream(&mut tcp)).await,
            Opened::Secure(mut wire) => timeout(backend.timeout, asking.over_stream(&mut wire)).await,
        }
    };
    let answer = answer.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    answer.map_err(|error| asking.seen.map_or(Missed::Unanswered(error), Missed::Unmatched))
}

fn query() -> Vec<u8> {
    // RD is not set: an answer from the server's own data is enough.
    let mut query = vec![0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    query.extend_from_slice(&QUESTION);
    query
}

impl Asking<'_> {
    /// Whether `message` is the answer; the reason is kept if it is not.
    fn is_answered_by(&mut self, message: &[u8]) -> bool {
        let has_id = message.first_chunk::<2>() == self.query.first_chunk::<2>();
        let last = match fit(message, &self.query, self.query.len()) {
            _ if !has_id => Unmatched::Id,
            Ok(_) => return true,
            Err(why) => why,
        };
        self.backend.health.note_unmatched(last);
        let count = self.seen.map_or(0, |seen| seen.count) + 1;
        self.seen = Some(Seen { count, last });
        false
    }

    async fn over_udp(&mut self) -> io::Result<Vec<u8>> {
        let host: IpAddr = match self.backend.address {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((host, 0)).await?;
        socket.connect(self.backend.address).await?;
        let mut datagram = Vec::new();
        if self.backend.proxy_v2 {
            proxy::header::write(None, &mut datagram);
        }
        datagram.extend_from_slice(&self.query);
        socket.send(&datagram).await?;
        let mut message = [0; 4096];
        loop {
            let octets = socket.recv(&mut message).await?;
            if let Some(answer) = message.get(..octets).filter(|message| self.is_answered_by(message)) {
                return Ok(answer.to_vec());
            }
        }
    }

    async fn over_stream<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
    ) -> io::Result<Vec<u8>> {
        let mut framed = Vec::new();
        append_message(&mut framed, |out| {
            out.extend_from_slice(&self.query);
            io::Result::Ok(())
        })?;
        stream.write_all(&framed).await?;
        stream.flush().await?;
        let mut message = Vec::new();
        loop {
            let octets = stream.read_u16().await?;
            message.resize(usize::from(octets), 0);
            stream.read_exact(&mut message).await?;
            if self.is_answered_by(&message) {
                return Ok(message);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::tests::backend_at;

    /// Goal: any rcode is an answer, also an error without the question; another question or a query is no
    /// answer, and the reason is kept. Covers: C-231, C-232
    #[test]
    fn an_answer_is_known_by_id_and_question() {
        let backend = backend_at(([127, 0, 0, 1], 53).into(), Transport::Udp);
        let mut asking = Asking { backend: &backend, query: query(), seen: None };
        let mut refused = asking.query.clone();
        refused[2] |= 0x80;
        refused[3] |= 5;
        let mut bare = refused[..12].to_vec();
        bare[5] = 0;
        assert!(asking.is_answered_by(&refused) && asking.is_answered_by(&bare));
        assert!(asking.seen.is_none() && backend.health.unmatched().is_none());
        assert!(!asking.is_answered_by(&asking.query.clone()));
        let mut other = refused.clone();
        other[14] = 1;
        assert!(!asking.is_answered_by(&other));
        refused[0] ^= 1;
        assert!(!asking.is_answered_by(&refused));
        assert_eq!(backend.health.unmatched(), Some((3, Unmatched::Id)));
        let seen = asking.seen.expect("three");
        assert_eq!(
            Missed::Unmatched(seen).to_string(),
            format!("no answer that fits; unmatched: 3, last: {}", Unmatched::Id)
        );
    }
}
