//! NOTIFY messages from the primary servers of policy zones.
//!
//! Before: a worker has a NOTIFY. After: the zone's task asks its primary server at once, and the sender gets an
//! answer.
//! Holds: the names of transferred zones, with the addresses and keys of their primary servers.
//! Never: uses the SOA record in the message: the primary server is asked, at most once a second.
//!
//! Source: RFC 1996 §3.10 and §4.7 (only from a known server), RFC 8945 §5.2.

use std::{net::IpAddr, sync::Arc};

use tokio::sync::Notify;

use crate::dns::{Labels, TsigKey};

/// A primary server, as the sender of a NOTIFY.
#[derive(Clone, Debug)]
pub struct Sender {
    /// Its address.
    pub address: IpAddr,
    /// The key that it signs with, if it does.
    pub key: Option<TsigKey>,
}

/// The decision about a NOTIFY.
#[derive(Debug)]
pub enum Notice<'n> {
    /// The zone is asked for. If the NOTIFY is signed, the answer is signed with this key.
    Taken(Option<(&'n TsigKey, Vec<u8>)>),
    /// It is about another zone, or comes from another address.
    Foreign,
    /// Its signature is wrong.
    Forged,
}

/// A zone: its name in wire format, its primary servers, and the bell of its task.
type Known = (Box<[u8]>, Vec<Sender>, Arc<Notify>);

/// The zones.
#[derive(Debug, Default)]
pub struct Notified {
    zones: Vec<Known>,
}

impl Notified {
    /// Adds a zone (its name in wire format, lower case); `bell` wakes its task.
    pub fn add(&mut self, zone: &[u8], senders: Vec<Sender>, bell: Arc<Notify>) {
        self.zones.push((zone.into(), senders, bell));
    }

    /// These zones. `None`: there are none.
    #[must_use]
    pub fn shared(self) -> Option<Arc<Self>> {
        (!self.zones.is_empty()).then(|| Arc::new(self))
    }

    /// Takes a NOTIFY about `zone` from this address. `now`: seconds since 1970.
    #[must_use]
    pub fn hear(
        &self,
        zone: &Labels,
        source: IpAddr,
        message: &[u8],
        is_signed: bool,
        now: u64,
    ) -> Notice<'_> {
        let known = self.zones.iter().find(|(name, ..)| **name == *zone.octets());
        let Some((_, senders, bell)) = known else { return Notice::Foreign };
        let source = source.to_canonical();
        let mut of_source =
            senders.iter().filter(|sender| sender.address.to_canonical() == source).peekable();
        if of_source.peek().is_none() {
            return Notice::Foreign;
        }
        if !is_signed {
            bell.notify_one();
            return Notice::Taken(None);
        }
        let verified = of_source.filter_map(|sender| sender.key.as_ref()).find_map(|key| {
            let mac = key.verify_query(message, now).ok()?;
            Some((key, mac))
        });
        if verified.is_some() {
            bell.notify_one();
        }
        verified.map_or(Notice::Forged, |verified| Notice::Taken(Some(verified)))
    }
}
