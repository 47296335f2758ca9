//! One exchange with a primary server: is there a newer version, and if so, transfer the whole zone or the
//! differences.
//!
//! Before: a zone's task has a server. After: the present version is confirmed, or a newer one is in a draft.
//! Holds: one connection, one message, and the state of `policy::Arriving`.
//! Never: accepts an older version; accepts records without a signature, if there is a key; waits longer than
//! [`STEP_TIME_MAX`] for octets or [`TRANSFER_TIME_MAX`] for all.
//!
//! Source: RFC 5936 §2.2 and §4.1, RFC 1995 §2 and §4, RFC 8945 §5.3.1, RFC 9103 §6 and §7.

use std::{
    io,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::Primary;
use crate::{
    dns::{Part, Progress, Soa, Transfer, TsigStream, ZoneRecord, is_response_to, soa_query, transfer_query},
    policy::{Arriving, Bounds, Draft, Unfit},
};

/// Time to connect, for a handshake, and for the next message. 10 s: a server may have to read a large zone from its
/// disk.
const STEP_TIME_MAX: Duration = Duration::from_secs(10);
/// Time for a whole transfer, however slow.
const TRANSFER_TIME_MAX: Duration = Duration::from_secs(3600);
/// 1 GiB as for a file, twice the records of the largest zone that `builder` accepts, 64 MiB of differences.
const BOUNDS: Bounds = Bounds { octets: 1 << 30, records: 32_000_000, difference_octets: 64 << 20 };

/// The present version.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) soa: Soa,
    /// The data of the SOA record.
    pub(super) rdata: Box<[u8]>,
}

/// The version that a server has.
pub(super) enum Fetched {
    /// The same version.
    Current,
    /// A newer one, and how it came.
    Newer(Draft, &'static str),
}

/// Asks `primary` for the zone `wire`, whose copy is at `copy`.
///
/// # Errors
/// One line: why the server gave no usable answer.
pub(super) async fn fetch(
    primary: &Primary,
    wire: &[u8],
    held: Option<&Held>,
    copy: &Path,
) -> Result<Fetched, String> {
    let fetched = timeout(TRANSFER_TIME_MAX, fetch_unbounded(primary, wire, held, copy)).await;
    fetched.unwrap_or_else(|_| Err("the transfer takes too long".to_owned()))
}

async fn fetch_unbounded(
    primary: &Primary,
    wire: &[u8],
    held: Option<&Held>,
    copy: &Path,
) -> Result<Fetched, String> {
    let mut line = Line::open(primary).await?;
    let soa = line.soa(wire).await?;
    if let Some(Held { soa: own, .. }) = held {
        if soa.serial == own.serial {
            return Ok(Fetched::Current);
        }
        if !soa.is_newer_than(own.serial) {
            return Err(is_older(&soa, own));
        }
        match line.transfer(wire, held, Method::Differences, copy).await {
            Ok(Some((draft, true))) => return Ok(Fetched::Newer(draft, "ixfr")),
            Ok(Some((draft, false))) => return Ok(Fetched::Newer(draft, "axfr")),
            Ok(None) => tracing::debug!("no differences came; requesting the whole zone"),
            Err(Unfit::Differences(why)) => {
                tracing::debug!(%why, "differences cannot be used; requesting the whole zone")
            }
            Err(Unfit::Zone(why)) => return Err(why),
        }
        // The rest of the differences may still arrive on the old connection.
        line = Line::open(primary).await?;
    }
    match line.transfer(wire, held, Method::Whole, copy).await {
        Ok(Some((draft, _))) => Ok(Fetched::Newer(draft, "axfr")),
        Ok(None) => Err("the zone ends after its first record".to_owned()),
        Err(Unfit::Differences(why) | Unfit::Zone(why)) => Err(why),
    }
}

/// The kind of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Whole,
    Differences,
}

trait Wire: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Wire for S {}

/// A connection to a primary server.
struct Line<'p> {
    stream: Box<dyn Wire>,
    primary: &'p Primary,
    message: Vec<u8>,
}

/// A query that was sent.
struct Sent {
    query: Vec<u8>,
    question_octets: usize,
    signatures: Option<TsigStream>,
}

impl<'p> Line<'p> {
    async fn open(primary: &'p Primary) -> Result<Self, String> {
        let tcp = in_time(TcpStream::connect(primary.address))
            .await
            .map_err(|error| format!("not connected: {error}"))?;
        tcp.set_nodelay(true).map_err(|error| error.to_string())?;
        let stream: Box<dyn Wire> = match &primary.tls {
            None => Box::new(tcp),
            Some(tls) => Box::new(in_time(tls.connect(tcp)).await.map_err(|error| format!("TLS: {error}"))?),
        };
        Ok(Self { stream, primary, message: Vec::new() })
    }

    async fn send(&mut self, query: Vec<u8>, wire: &[u8]) -> Result<Sent, String> {
        let mut message = query.clone();
        let signatures = self.primary.key.as_ref().map(|key| key.sign_query(&mut message, now()));
        let octets = u16::try_from(message.len()).map_err(|_| "the query is too long")?;
        let framed = [&octets.to_be_bytes()[..], &message].concat();
        let write = async {
            self.stream.write_all(&framed).await?;
            self.stream.flush().await
        };
        in_time(write).await.map_err(|error| format!("the query cannot be sent: {error}"))?;
        Ok(Sent { query, question_octets: wire.len() + 4, signatures })
    }

    /// Reads the next message of the answer to `sent`.
    async fn receive(&mut self, sent: &mut Sent, is_first: bool) -> Result<(), String> {
        let message = &mut self.message;
        let stream = &mut self.stream;
        let read = async {
            let octets = stream.read_u16().await?;
            message.resize(usize::from(octets), 0);
            stream.read_exact(message).await.map(drop)
        };
        in_time(read).await.map_err(|error| format!("no answer: {error}"))?;
        // Servers may send a refusal unsigned: its rcode is reported too.
        let verified = sent.signatures.as_mut().map_or(Ok(()), |signatures| signatures.take(message, now()));
        let is_fit = is_response_to(message, &sent.query, sent.question_octets, is_first);
        match (verified, is_fit) {
            (Ok(()), is_fit) => is_fit,
            (Err(error), Err(why)) => Err(format!("{why}; {error}")),
            (Err(error), Ok(())) => Err(error.to_string()),
        }
    }

    /// The SOA record of the server's version.
    async fn soa(&mut self, wire: &[u8]) -> Result<Soa, String> {
        let mut sent = self.send(soa_query(id()?, wire), wire).await?;
        self.receive(&mut sent, true).await?;
        // AA: only an authoritative server knows the version (RFC 1034 §4.3.5).
        let is_authoritative = self.message.get(2).is_some_and(|flags| flags & 0x04 != 0);
        let first =
            crate::dns::answers(&self.message, crate::dns::HEADER_OCTETS + sent.question_octets).next();
        let record = first.and_then(|answer| ZoneRecord::read(&self.message, answer.start));
        let soa = record.filter(|record| is_authoritative && *record.owner == *wire);
        soa.and_then(|record| record.soa())
            .ok_or_else(|| "the server does not have the zone: no SOA record".to_owned())
    }

    /// Transfers the whole zone, or the differences from the present version.
    async fn transfer(
        &mut self,
        wire: &[u8],
        held: Option<&Held>,
        method: Method,
        copy: &Path,
    ) -> Result<Option<(Draft, bool)>, Unfit> {
        let from = held.filter(|_| method == Method::Differences);
        let query = transfer_query(id().map_err(Unfit::Zone)?, wire, from.map(|from| &*from.rdata));
        let mut sent = self.send(query, wire).await.map_err(Unfit::Zone)?;
        let has = from.map(|from| from.soa.serial);
        let (mut progress, mut arriving) = (Transfer::begin(has), Arriving::begin(copy, has, BOUNDS)?);
        let mut is_first = true;
        loop {
            let received = self.receive(&mut sent, is_first).await;
            // A server without differences may refuse in many ways.
            received.map_err(|why| if has.is_some() { Unfit::Differences(why) } else { Unfit::Zone(why) })?;
            let message = &self.message;
            let mut refused = None;
            let progressed = progress.take_each(message, |part, start| {
                let Some(record) = ZoneRecord::read(message, start) else { return false };
                let begun = if part == Part::First { begin(&record, wire, held) } else { Ok(()) };
                refused = begun.map_err(Unfit::Zone).and_then(|()| arriving.take(part, &record)).err();
                refused.is_none()
            });
            if let Some(unfit) = refused {
                return Err(unfit);
            }
            match progressed {
                None => return Err(Unfit::Zone("a message has broken records".to_owned())),
                Some(Progress::More) => is_first = false,
                Some(Progress::Done) => break,
            }
        }
        if sent.signatures.is_some_and(|signatures| !signatures.is_covered()) {
            return Err(Unfit::Zone("TSIG: the last message has no signature".to_owned()));
        }
        arriving.finish()
    }
}

/// Whether a transfer may begin with this record: the SOA record of the zone, of a version that is not older than the
/// present one.
fn begin(record: &ZoneRecord, wire: &[u8], held: Option<&Held>) -> Result<(), String> {
    if *record.owner != *wire {
        return Err("the transfer is of another zone".to_owned());
    }
    let soa = record.soa().ok_or("the transfer does not begin with a SOA record")?;
    match held {
        Some(Held { soa: own, .. }) if own.is_newer_than(soa.serial) => Err(is_older(&soa, own)),
        _ => Ok(()),
    }
}

fn is_older(soa: &Soa, own: &Soa) -> String {
    format!("its version {} is older than the present one, {}", soa.serial, own.serial)
}

async fn in_time<T>(step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(STEP_TIME_MAX, step).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn id() -> Result<u16, String> {
    let random = getrandom::u32().map_err(|error| format!("no random number: {error}"))?;
    let [_, _, high, low] = random.to_be_bytes();
    Ok(u16::from_be_bytes([high, low]))
}

#[cfg(test)]
mod tests;
