//! Caps on connections, over all workers: in total, for each client prefix and for each listen address; and how often a
//! client prefix may begin a handshake.
//!
//! Before: a connection was accepted. After: it has a place, which its end returns, or is refused.
//! Holds: one count for each client prefix with connections, and one for each listen address. Prefixes without
//! connections take no memory, except their handshake rates in a table of fixed size if there is a limit.
//! Never: is used on the query path: it takes a lock once when a connection opens and once when it ends.
//!
//! Source: RFC 7766 §6.2.2, RFC 9210 §4.2.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use dot_common::{prefix::ClientPrefix, rate::Rate};
use tokio::time::Instant;

use crate::session::{Fill, Rates};

/// Number of locks over which prefixes are spread.
const SHARDS: usize = 64;
/// Handshakes at once, in seconds of the rate: the same ratio as `xdp.limit.syn_burst` to `syn_per_second`.
const BURST_SECONDS: u32 = 2;

/// The caps.
#[derive(Clone, Copy, Debug, Default)]
pub struct Caps {
    /// All connections.
    pub total: u32,
    /// Connections of one client prefix.
    pub per_prefix: u32,
    /// Connections of one listen address; 0: as many as in total.
    pub per_listener: u32,
    /// Handshakes that a client prefix may begin in a second; 0: no limit.
    pub handshakes_per_second: u32,
}

/// The caps and the current counts.
pub struct Admission {
    total: AtomicU32,
    total_max: AtomicU32,
    per_prefix_max: AtomicU32,
    per_listener_max: AtomicU32,
    listeners: Box<[AtomicU32]>,
    handshakes_per_second: AtomicU32,
    handshakes: Rates,
    prefix_bits: (u8, u8),
    shards: [Mutex<HashMap<ClientPrefix, u32>>; SHARDS],
}

/// Why a connection is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// `connections_max` is reached.
    Total,
    /// `connections_per_prefix_max` is reached.
    Prefix,
    /// `connections_per_listener_max` is reached.
    Listener,
    /// `handshakes_per_second` is reached.
    Rate,
}

/// A place for one connection; dropping it frees it.
pub struct Place {
    admission: Arc<Admission>,
    /// `None`: the client is not known yet.
    prefix: Option<ClientPrefix>,
    /// The index of its listen address.
    listener: usize,
}

impl Admission {
    /// Caps for client prefixes of these lengths in bits, IPv4 and IPv6, and for this many listen addresses.
    #[must_use]
    pub fn new(caps: Caps, prefix_bits: (u8, u8), listeners: usize) -> Self {
        Self {
            total: AtomicU32::new(0),
            total_max: AtomicU32::new(caps.total),
            per_prefix_max: AtomicU32::new(caps.per_prefix),
            per_listener_max: AtomicU32::new(caps.per_listener),
            listeners: (0..listeners).map(|_| AtomicU32::new(0)).collect(),
            handshakes_per_second: AtomicU32::new(caps.handshakes_per_second),
            handshakes: Rates::default(),
            prefix_bits,
            shards: std::array::from_fn(|_| Mutex::default()),
        }
    }

    /// Sets new caps; open connections stay.
    pub fn reload(&self, caps: Caps) {
        self.total_max.store(caps.total, Relaxed);
        self.per_prefix_max.store(caps.per_prefix, Relaxed);
        self.per_listener_max.store(caps.per_listener, Relaxed);
        self.handshakes_per_second.store(caps.handshakes_per_second, Relaxed);
    }

    /// Counts a handshake of `client`.
    ///
    /// # Errors
    /// [`Refused::Rate`].
    pub fn begin_handshake(&self, client: IpAddr, now: Instant) -> Result<(), Refused> {
        let rate = self.handshake_rate();
        if self.handshakes.admits(client, self.prefix_bits, rate, now) { Ok(()) } else { Err(Refused::Rate) }
    }

    /// Takes a place for a connection from `client` to that listen address.
    ///
    /// # Errors
    /// [`Refused`], with the cap that is reached.
    pub fn admit(self: &Arc<Self>, client: IpAddr, listener: usize) -> Result<Place, Refused> {
        let mut place = self.admit_unknown(listener).map_err(|refused| {
            // Its own cap comes first: a client at its cap must not displace others.
            if self.is_at_its_cap(client) { Refused::Prefix } else { refused }
        })?;
        place.belongs_to(client)?;
        Ok(place)
    }

    fn is_at_its_cap(&self, client: IpAddr) -> bool {
        self.with_count(self.prefix_of(client), |count| *count >= self.per_prefix_max.load(Relaxed))
    }

    /// Takes a place for a connection whose client a load balancer has not named yet.
    ///
    /// # Errors
    /// [`Refused::Listener`] or [`Refused::Total`].
    pub fn admit_unknown(self: &Arc<Self>, listener: usize) -> Result<Place, Refused> {
        // The listener's cap comes first: the place of a session that ends there is also one in total.
        if !self.arrive(listener) {
            return Err(Refused::Listener);
        }
        if self.total.fetch_add(1, Relaxed) >= self.total_max.load(Relaxed) {
            self.total.fetch_sub(1, Relaxed);
            self.leave(listener);
            return Err(Refused::Total);
        }
        Ok(Place { admission: Arc::clone(self), prefix: None, listener })
    }

    /// Counts a connection at a listener, even without a cap, because a reload may set one. `false`: it is at its cap.
    fn arrive(&self, listener: usize) -> bool {
        let max = self.per_listener_max.load(Relaxed);
        let Some(count) = self.listeners.get(listener) else { return true };
        let has_room = count.fetch_add(1, Relaxed) < max || max == 0;
        if !has_room {
            count.fetch_sub(1, Relaxed);
        }
        has_room
    }

    fn leave(&self, listener: usize) {
        if let Some(count) = self.listeners.get(listener) {
            count.fetch_sub(1, Relaxed);
        }
    }

    /// Number of connections.
    #[must_use]
    pub fn total(&self) -> u32 {
        self.total.load(Relaxed)
    }

    /// Connections of a client now.
    #[must_use]
    pub fn connections_of(&self, client: IpAddr) -> u32 {
        self.with_count(self.prefix_of(client), |count| *count)
    }

    /// How often a client may begin a handshake.
    #[must_use]
    pub fn handshake_rate(&self) -> Rate {
        let per_second = self.handshakes_per_second.load(Relaxed);
        Rate::new(per_second, per_second.saturating_mul(BURST_SECONDS))
    }

    /// How far a client is ahead of its schedule of handshakes.
    #[must_use]
    pub fn handshakes_ahead_ns(&self, client: IpAddr, now: Instant) -> u64 {
        self.handshakes.ahead_ns(client, self.prefix_bits, now)
    }

    /// Number of connections, and its cap.
    #[must_use]
    pub fn fill(&self) -> Fill {
        Fill { open: self.total(), max: self.total_max.load(Relaxed) }
    }

    pub(super) fn prefix_of(&self, client: IpAddr) -> ClientPrefix {
        ClientPrefix::of(client, self.prefix_bits.0, self.prefix_bits.1)
    }

    /// Calls `change` with the count of `prefix`, and removes a prefix whose count is 0.
    fn with_count<R>(&self, prefix: ClientPrefix, change: impl FnOnce(&mut u32) -> R) -> R {
        let hash = prefix.key().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - SHARDS.ilog2());
        let shard = self.shards.get(usize::try_from(hash).unwrap_or_default()).unwrap_or(&self.shards[0]);
        // A poisoned lock means a panic elsewhere; the counts are still consistent, because each change is one step.
        let mut counts = shard.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(prefix).or_default();
        let result = change(count);
        if *count == 0 {
            counts.remove(&prefix);
        }
        result
    }
}

impl Place {
    /// The place belongs to `client` from now on.
    ///
    /// # Errors
    /// [`Refused::Prefix`]: its prefix is at its cap; the caller must return the place.
    pub fn belongs_to(&mut self, client: IpAddr) -> Result<(), Refused> {
        let prefix = self.admission.prefix_of(client);
        let is_admitted = self.admission.with_count(prefix, |count| {
            let has_room = *count < self.admission.per_prefix_max.load(Relaxed);
            *count += u32::from(has_room);
            has_room
        });
        if !is_admitted {
            return Err(Refused::Prefix);
        }
        self.give_prefix_back();
        self.prefix = Some(prefix);
        Ok(())
    }

    pub(super) fn listener(&self) -> usize {
        self.listener
    }

    pub(super) fn prefix(&self) -> Option<ClientPrefix> {
        self.prefix
    }

    fn give_prefix_back(&mut self) {
        if let Some(prefix) = self.prefix.take() {
            self.admission.with_count(prefix, |count| *count = count.saturating_sub(1));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.give_prefix_back();
        self.admission.leave(self.listener);
        self.admission.total.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn admission(total: u32, per_prefix: u32) -> Arc<Admission> {
        Arc::new(Admission::new(Caps { total, per_prefix, ..Caps::default() }, (32, 56), 2))
    }

    /// Covers: C-25.
    #[test]
    fn caps_the_total_and_gives_places_back() {
        let admission = admission(2, 10);
        let first = admission.admit("192.0.2.1".parse().unwrap(), 0).ok().unwrap();
        let _second = admission.admit("192.0.2.2".parse().unwrap(), 0).ok().unwrap();
        assert_eq!(admission.admit("192.0.2.3".parse().unwrap(), 0).err(), Some(Refused::Total));
        drop(first);
        assert!(admission.admit("192.0.2.3".parse().unwrap(), 0).is_ok());
        assert_eq!(admission.total(), 1);
    }

    /// Goal: changing addresses inside a /56 does not help. Covers: C-25, A-76.
    #[test]
    fn caps_a_prefix_and_not_its_neighbour() {
        let admission = admission(10, 1);
        let _place = admission.admit("2001:db8:0:1::1".parse().unwrap(), 0).ok().unwrap();
        assert_eq!(admission.admit("2001:db8:0:2::1".parse().unwrap(), 0).err(), Some(Refused::Prefix));
        assert!(admission.admit("2001:db8:0:100::1".parse().unwrap(), 0).is_ok());
    }

    /// Goal: a listener has its cap, which also counts connections from before the cap was set; its neighbour has
    /// another; places come back; a client at its own cap is refused for that. Covers: C-244
    #[test]
    fn caps_a_listener_and_not_its_neighbour() {
        let admission = admission(10, 5);
        let admit = |listener| admission.admit("192.0.2.1".parse().unwrap(), listener);
        let before: Vec<_> = (0..3).map(|_| admit(0).ok().unwrap()).collect();
        admission.reload(Caps { total: 10, per_prefix: 5, per_listener: 3, ..Caps::default() });
        assert_eq!(admit(0).err(), Some(Refused::Listener));
        assert_eq!(admission.admit_unknown(0).err(), Some(Refused::Listener));
        assert_eq!(admission.total(), 3);
        let beside: Vec<_> = (0..2).map(|_| admit(1).ok().unwrap()).collect();
        assert_eq!(admit(0).err(), Some(Refused::Prefix));
        drop(before);
        assert!(admit(0).is_ok());
        admission.reload(Caps { total: 2, per_prefix: 5, per_listener: 3, ..Caps::default() });
        assert_eq!(admit(0).err(), Some(Refused::Total));
        drop(beside);
        let after: Vec<_> = (0..2).map(|_| admit(0).ok().unwrap()).collect();
        assert_eq!(
            (after.len(), admission.total()),
            (2, 2),
            "a refusal by the total left the listener's count as it was"
        );
    }

    /// Goal: a prefix begins its limit of handshakes a second, and twice that at once; its neighbour has its own limit,
    /// and without a limit there is no table. Method: times by hand.
    #[test]
    fn a_prefix_has_its_rate_of_handshakes() {
        let admission = admission(10, 10);
        let now = Instant::now() + Duration::from_secs(5);
        let begun = |client: &str, after: u64| {
            let at = now + Duration::from_secs(after);
            (0..100).filter(|_| admission.begin_handshake(client.parse().unwrap(), at).is_ok()).count()
        };
        assert_eq!(begun("2001:db8:0:1::1", 0), 100);
        admission.reload(Caps { total: 10, per_prefix: 10, handshakes_per_second: 10, ..Caps::default() });
        assert_eq!([begun("2001:db8:0:1::1", 1), begun("2001:db8:0:2::1", 1)], [20, 0], "one /56");
        assert_eq!([begun("2001:db8:0:100::1", 1), begun("2001:db8:0:1::1", 100)], [20, 20]);
        assert!((9..=10).contains(&begun("2001:db8:0:1::1", 101)));
        admission.reload(Caps { total: 10, per_prefix: 10, ..Caps::default() });
        assert_eq!(begun("2001:db8:0:1::1", 101), 100);
    }

    /// Goal: a place behind a load balancer counts for the client that the header names, and for no client before.
    #[test]
    fn a_place_is_nobodys_until_its_client_is_known() {
        let admission = admission(3, 1);
        let mut unknown = admission.admit_unknown(0).ok().unwrap();
        let client = "192.0.2.1".parse().unwrap();
        let known = admission.admit(client, 0).ok().unwrap();
        assert_eq!(unknown.belongs_to(client), Err(Refused::Prefix));
        drop(known);
        assert_eq!(unknown.belongs_to(client), Ok(()));
        assert_eq!(admission.admit(client, 0).err(), Some(Refused::Prefix));
        drop(unknown);
        assert!(admission.admit(client, 0).is_ok());
        assert_eq!(admission.total(), 0);
    }

    #[test]
    fn an_ipv4_client_on_an_ipv6_socket_is_an_ipv4_client() {
        let admission = admission(10, 1);
        let _place = admission.admit("::ffff:192.0.2.1".parse().unwrap(), 0).ok().unwrap();
        assert_eq!(admission.admit("192.0.2.1".parse().unwrap(), 0).err(), Some(Refused::Prefix));
        assert!(admission.admit("::ffff:192.0.2.2".parse().unwrap(), 0).is_ok());
    }
}
