//! Notices of the kernel half about refused clients, from its ring buffer, and their counts.
//!
//! Before: XDP refused a client for the first time in a minute. After: the control thread has a line to log.
//! Holds: the ring, and the counts of notices sent, held back and lost. It has only descriptors, and needs no right.
//! Never: makes the kernel wait for a reader.

use std::io;

use aya::{
    Ebpf,
    maps::{MapData, PerCpuArray, RingBuf},
};
use dot_common::{
    maps::{NOTICE_COUNTS, NOTICES},
    notice::{Fate, Notice},
    prefix::ClientPrefix,
    verdict::Verdict,
};

use super::{
    XdpError,
    attach::{refused, take},
    report::NoticeCounts,
    ring::Ring,
};

/// Counts of the kernel half, and the ring until it has a listener.
pub(super) struct Sent {
    counts: PerCpuArray<MapData, u64>,
    ring: Option<RingBuf<MapData>>,
}

impl Sent {
    /// Takes both maps out of the object.
    pub(super) fn take(object: &mut Ebpf) -> Result<Self, XdpError> {
        let counts = PerCpuArray::try_from(take(object, NOTICE_COUNTS)?)
            .map_err(|error| refused(NOTICE_COUNTS, &error))?;
        let ring = RingBuf::try_from(take(object, NOTICES)?).map_err(|error| refused(NOTICES, &error))?;
        Ok(Self { counts, ring: Some(ring) })
    }

    /// The number of notices, all CPUs together.
    pub(super) fn counts(&self) -> NoticeCounts {
        let total = |fate: Fate| -> u64 {
            self.counts.get(&(fate as u32), 0).map_or(0, |per_cpu| per_cpu.iter().sum())
        };
        NoticeCounts { sent: total(Fate::Sent), held_back: total(Fate::HeldBack), lost: total(Fate::Lost) }
    }

    /// Gives the ring to a listener, once.
    pub(super) fn listen(&mut self) -> io::Result<Option<Notices>> {
        let Some(ring) = self.ring.take() else { return Ok(None) };
        Ok(Some(Notices { ring: Ring::listen(ring)? }))
    }
}

/// The listener.
pub struct Notices {
    ring: Ring,
}

/// A client that is refused, and the reason; reported once a minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The prefix by which limits and bans count it.
    pub client: ClientPrefix,
    /// The verdict.
    pub verdict: Verdict,
}

impl Notices {
    /// Waits for the next notices; returns a turn's worth at most.
    ///
    /// # Errors
    /// The ring is broken.
    ///
    /// # Cancel safety
    /// Yes: notices that were not taken are returned the next time.
    pub async fn next(&mut self) -> io::Result<Vec<Refusal>> {
        self.ring.next(read).await
    }
}

/// The notice in an entry. `None`: its size is wrong, which cannot happen.
fn read(octets: &[u8]) -> Option<Refusal> {
    let (client, rest) = octets.split_first_chunk::<8>()?;
    let (reason, rest) = rest.split_first_chunk::<4>()?;
    let (action, _) = rest.split_first_chunk::<4>()?;
    let notice = Notice {
        client: u64::from_ne_bytes(*client),
        reason: u32::from_ne_bytes(*reason),
        action: u32::from_ne_bytes(*action),
    };
    Some(Refusal { client: ClientPrefix::from_key(notice.client), verdict: notice.verdict()? })
}

#[cfg(test)]
mod tests {
    use dot_common::verdict::{Action, Reason};

    use super::*;

    /// Goal: an entry is read as the kernel half wrote it, and other octets are ignored.
    #[test]
    fn entries_read_as_they_were_written() {
        let client = ClientPrefix::v4(0xc000_0207, 32);
        let verdict = Verdict { action: Action::WouldDrop, reason: Reason::UdpOnDot };
        let octets = [
            &client.key().to_ne_bytes()[..],
            &(verdict.reason as u32).to_ne_bytes(),
            &(verdict.action as u32).to_ne_bytes(),
        ]
        .concat();
        assert_eq!(read(&octets), Some(Refusal { client, verdict }));
        assert_eq!(read(&octets[..15]), None);
        assert_eq!(read(&[0xff; 16]), None);
    }
}
