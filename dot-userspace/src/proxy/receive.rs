//! Reads the header of a new connection from a load balancer, and not one octet more.
//!
//! Before: `worker::accept` has a connection from a trusted prefix. After: TLS begins with the next octet.
//! Never: waits past the deadline, keeps octets that it does not need, or continues after an invalid header.

use std::io;

use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    time::{Instant, timeout_at},
};

use super::{
    Named,
    header::{ADDRESSES_OCTETS_MAX, Malformed, PASSED_OCTETS_MAX, PREAMBLE_OCTETS, Tlvs, parse_preamble},
};

/// Octets behind the addresses that are skipped at a time.
const SKIPPED_OCTETS: usize = 256;

/// The reason why there is no header.
#[derive(Debug, Error)]
pub enum Refusal {
    /// It was not whole by the deadline.
    #[error("no whole PROXY header in time")]
    Timeout,
    /// The sender closed the connection.
    #[error("closed before its PROXY header was whole")]
    Closed,
    /// It is not a header.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// Reads one header.
///
/// # Errors
/// [`Refusal`]: the connection must be closed.
///
/// # Cancel safety
/// The octets that were read are lost, so the connection cannot be used any more.
pub async fn receive<S: AsyncRead + Unpin>(stream: &mut S, deadline: Instant) -> Result<Named, Refusal> {
    timeout_at(deadline, read(stream)).await.unwrap_or(Err(Refusal::Timeout))
}

async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Named, Refusal> {
    let closed = |_: io::Error| Refusal::Closed;
    let mut preamble = [0; PREAMBLE_OCTETS];
    // An invalid one is refused at its first octet: dotd does not wait for sixteen octets of an alert.
    let (first, rest) = preamble.split_at_mut(1);
    stream.read_exact(first).await.map_err(closed)?;
    if first != b"\r" {
        return Err(Malformed::Signature.into());
    }
    stream.read_exact(rest).await.map_err(closed)?;
    let preamble = parse_preamble(&preamble)?;
    let mut addresses = [0; ADDRESSES_OCTETS_MAX];
    let (addresses, _) = addresses.split_at_mut(preamble.address_octets());
    stream.read_exact(addresses).await.map_err(closed)?;
    let addresses = preamble.addresses(addresses)?;
    let mut left = usize::from(preamble.octets).saturating_sub(preamble.address_octets());
    let mut tlvs = None;
    if (1..=PASSED_OCTETS_MAX).contains(&left) {
        let mut octets = [0; PASSED_OCTETS_MAX];
        let (octets, _) = octets.split_at_mut(left);
        stream.read_exact(octets).await.map_err(closed)?;
        tlvs = addresses.and_then(|_| Tlvs::read(octets));
        left = 0;
    }
    let mut skipped = [0; SKIPPED_OCTETS];
    while left > 0 {
        let (part, _) = skipped.split_at_mut(left.min(SKIPPED_OCTETS));
        stream.read_exact(part).await.map_err(closed)?;
        left -= part.len();
    }
    Ok(Named { addresses, is_datagram: preamble.is_datagram, tlvs })
}
