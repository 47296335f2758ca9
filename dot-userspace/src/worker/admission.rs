//! Caps on connections, over all workers: in total and per client prefix.
//!
//! Before: a connection was accepted. After: it has a place that its end gives back, or is refused.
//! Holds: one count per client prefix that has connections now; nothing about those that have none.
//! Never: stands on the query path: a lock is taken once when a connection opens and once when it ends.
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

use crate::session::Fill;

/// Locks among which the prefixes are spread.
const SHARDS: usize = 64;

/// A client prefix as a number: family and leading bits.
pub(super) type Prefix = (bool, u128);

/// The caps and who uses them up.
pub struct Admission {
    total: AtomicU32,
    total_max: AtomicU32,
    per_prefix_max: AtomicU32,
    prefix_v4: u8,
    prefix_v6: u8,
    shards: [Mutex<HashMap<Prefix, u32>>; SHARDS],
}

/// Why a connection is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// `connections_max` is reached.
    Total,
    /// `connections_per_prefix_max` is reached.
    Prefix,
}

/// A place for one connection; dropping it gives it back.
pub struct Place {
    admission: Arc<Admission>,
    /// `None`: who the client is, is not known yet.
    prefix: Option<Prefix>,
}

impl Admission {
    /// Caps over client prefixes of these lengths in bits.
    #[must_use]
    pub fn new(total_max: u32, per_prefix_max: u32, prefix_v4: u8, prefix_v6: u8) -> Self {
        Self {
            total: AtomicU32::new(0),
            total_max: AtomicU32::new(total_max),
            per_prefix_max: AtomicU32::new(per_prefix_max),
            prefix_v4,
            prefix_v6,
            shards: std::array::from_fn(|_| Mutex::default()),
        }
    }

    /// New caps; connections that are there stay.
    pub fn reload(&self, total_max: u32, per_prefix_max: u32) {
        self.total_max.store(total_max, Relaxed);
        self.per_prefix_max.store(per_prefix_max, Relaxed);
    }

    /// A place for a connection from `client`.
    ///
    /// # Errors
    /// [`Refused`], with the cap that is reached.
    pub fn admit(self: &Arc<Self>, client: IpAddr) -> Result<Place, Refused> {
        let mut place = self.admit_unknown().map_err(|refused| {
            // Its own cap first: a client that has all it may have is not to displace others.
            if self.is_at_its_cap(client) { Refused::Prefix } else { refused }
        })?;
        place.belongs_to(client)?;
        Ok(place)
    }

    fn is_at_its_cap(&self, client: IpAddr) -> bool {
        self.with_count(self.prefix_of(client), |count| *count >= self.per_prefix_max.load(Relaxed))
    }

    /// A place for a connection whose client a load balancer has yet to name.
    ///
    /// # Errors
    /// [`Refused::Total`].
    pub fn admit_unknown(self: &Arc<Self>) -> Result<Place, Refused> {
        if self.total.fetch_add(1, Relaxed) >= self.total_max.load(Relaxed) {
            self.total.fetch_sub(1, Relaxed);
            return Err(Refused::Total);
        }
        Ok(Place { admission: Arc::clone(self), prefix: None })
    }

    /// Connections now.
    #[must_use]
    pub fn total(&self) -> u32 {
        self.total.load(Relaxed)
    }

    /// Connections now, and the most there may be.
    #[must_use]
    pub fn fill(&self) -> Fill {
        Fill { open: self.total(), max: self.total_max.load(Relaxed) }
    }

    pub(super) fn prefix_of(&self, client: IpAddr) -> Prefix {
        match client.to_canonical() {
            IpAddr::V4(address) => (false, leading(u128::from(address.to_bits()) << 96, self.prefix_v4)),
            IpAddr::V6(address) => (true, leading(address.to_bits(), self.prefix_v6)),
        }
    }

    /// Runs `change` on the count of `prefix`, and forgets a prefix that has none.
    fn with_count<R>(&self, prefix: Prefix, change: impl FnOnce(&mut u32) -> R) -> R {
        let hash = prefix.1.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835) >> 122;
        let shard = self.shards.get(usize::try_from(hash).unwrap_or_default()).unwrap_or(&self.shards[0]);
        // A poisoned lock is a panic elsewhere; the counts are still whole, each change is one step.
        let mut counts = shard.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(prefix).or_default();
        let result = change(count);
        if *count == 0 {
            counts.remove(&prefix);
        }
        result
    }
}

fn leading(bits: u128, length: u8) -> u128 {
    bits & u128::MAX.checked_shl(128_u32.saturating_sub(length.into())).unwrap_or(0)
}

impl Place {
    /// The place is `client`'s from now on.
    ///
    /// # Errors
    /// [`Refused::Prefix`]: its prefix has as many as it may; the place is to be given back.
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

    pub(super) fn prefix(&self) -> Option<Prefix> {
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
        self.admission.total.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(total: u32, per_prefix: u32) -> Arc<Admission> {
        Arc::new(Admission::new(total, per_prefix, 32, 56))
    }

    /// Covers: C-25.
    #[test]
    fn caps_the_total_and_gives_places_back() {
        let admission = admission(2, 10);
        let first = admission.admit("192.0.2.1".parse().unwrap()).ok().unwrap();
        let _second = admission.admit("192.0.2.2".parse().unwrap()).ok().unwrap();
        assert_eq!(admission.admit("192.0.2.3".parse().unwrap()).err(), Some(Refused::Total));
        drop(first);
        assert!(admission.admit("192.0.2.3".parse().unwrap()).is_ok());
        assert_eq!(admission.total(), 1);
    }

    /// Goal: hopping inside a /56 does not help. Covers: C-25, A-76.
    #[test]
    fn caps_a_prefix_and_not_its_neighbour() {
        let admission = admission(10, 1);
        let _place = admission.admit("2001:db8:0:1::1".parse().unwrap()).ok().unwrap();
        assert_eq!(admission.admit("2001:db8:0:2::1".parse().unwrap()).err(), Some(Refused::Prefix));
        assert!(admission.admit("2001:db8:0:100::1".parse().unwrap()).is_ok());
        let single = Arc::new(Admission::new(10, 1, 32, 128));
        let _place = single.admit("2001:db8::1".parse().unwrap()).ok().unwrap();
        assert!(single.admit("2001:db8::2".parse().unwrap()).is_ok(), "a prefix may be one address");
        assert_eq!(leading(u128::MAX, 0), 0);
    }

    /// Goal: a place behind a load balancer counts for the client that it names, and for nobody before.
    #[test]
    fn a_place_is_nobodys_until_its_client_is_known() {
        let admission = admission(3, 1);
        let mut unknown = admission.admit_unknown().ok().unwrap();
        let client = "192.0.2.1".parse().unwrap();
        let known = admission.admit(client).ok().unwrap();
        assert_eq!(unknown.belongs_to(client), Err(Refused::Prefix));
        drop(known);
        assert_eq!(unknown.belongs_to(client), Ok(()));
        assert_eq!(admission.admit(client).err(), Some(Refused::Prefix));
        drop(unknown);
        assert!(admission.admit(client).is_ok());
        assert_eq!(admission.total(), 0);
    }

    #[test]
    fn an_ipv4_client_on_an_ipv6_socket_is_an_ipv4_client() {
        let admission = admission(10, 1);
        let _place = admission.admit("::ffff:192.0.2.1".parse().unwrap()).ok().unwrap();
        assert_eq!(admission.admit("192.0.2.1".parse().unwrap()).err(), Some(Refused::Prefix));
        assert!(admission.admit("::ffff:192.0.2.2".parse().unwrap()).is_ok());
    }
}
