//! Each CPU's cache of the clients that it judged last, so that lists and bans need not be looked up for each packet.
//!
//! Before: [`crate::client_lists::standing`] asked tries and a hash about a client. After: its next packet on this CPU costs an
//! index and a comparison.
//! Holds: the entry, its place, and what makes it void. Never: decides; where another client's entry took the place,
//! the lists are asked again, so that packets from anywhere cost time and nothing else.

use crate::{ban::Ban, flow::FlowKey, network::Network, verdict::Reason};

/// The entries of lists and bans for a client.
#[repr(u32)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// Neither list nor ban has it.
    #[default]
    Unbarred = 0,
    /// It is on the deny list.
    Denied = 1,
    /// An operator banned it: it gets nothing.
    Banned = 2,
    /// The engine banned it: it begins nothing new.
    NothingNew = 3,
}

impl Standing {
    /// The standing of a number; an unknown number bars no client.
    #[must_use]
    #[inline(always)]
    pub const fn of(number: u32) -> Self {
        match number {
            1 => Self::Denied,
            2 => Self::Banned,
            3 => Self::NothingNew,
            _ => Self::Unbarred,
        }
    }

    /// Why a packet of a client with this standing is refused; `begins` is [`crate::packet::Packet::begins`].
    #[must_use]
    #[inline(always)]
    pub const fn reason(self, begins: bool) -> Option<Reason> {
        match self {
            Self::Denied => Some(Reason::Denied),
            Self::Banned => Some(Reason::Banned),
            Self::NothingNew if begins => Some(Reason::Banned),
            Self::Unbarred | Self::NothingNew => None,
        }
    }

    /// Whether it comes from a ban, which the clock ends.
    #[must_use]
    #[inline(always)]
    pub const fn is_of_ban(self) -> bool {
        matches!(self, Self::Banned | Self::NothingNew)
    }
}

/// One client, by its whole address. 64 octets, no padding.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CachedClient {
    /// Its address, as in [`FlowKey`].
    pub client: [u64; 2],
    /// 4 or 6; 0: the entry is empty.
    pub version: u32,
    /// The [`Settings::generation`] in which the client was looked up.
    ///
    /// [`Settings::generation`]: crate::settings::Settings::generation
    pub generation: u32,
    /// A [`Standing`].
    pub standing: u32,
    /// The [`Ban::serial`] of the ban it met.
    pub serial: u32,
    /// Tick of the kernel's clock in which the client was looked up: a ban ends by the clock.
    pub tick: u64,
    /// The network whose ban it met.
    pub ban: Network,
    /// Packets that met the ban since, not yet added to its hits.
    pub hits: u64,
}

const _: () = assert!(size_of::<CachedClient>() == 64 && align_of::<CachedClient>() == 8);

impl CachedClient {
    /// The standing of a packet's client, if the entry is this client's and nothing has changed since.
    #[must_use]
    #[inline(always)]
    pub fn recall(&self, flow: &FlowKey, generation: u32, tick: impl FnOnce() -> u64) -> Option<Standing> {
        let ([a, b], [c, d]) = (self.client, flow.client);
        let difference = (self.version ^ flow.version) | (self.generation ^ generation);
        if (a ^ c) | (b ^ d) | difference as u64 != 0 {
            return None;
        }
        let standing = Standing::of(self.standing);
        if standing.is_of_ban() && self.tick != tick() { None } else { Some(standing) }
    }

    /// The network of the ban to which hits must still be added; `None`: all hits are added.
    #[must_use]
    #[inline(always)]
    pub const fn owes(&self) -> Option<&Network> {
        if self.hits == 0 { None } else { Some(&self.ban) }
    }

    /// Whether the hits belong to this ban, and not to one that was lifted before this one was made.
    #[must_use]
    #[inline(always)]
    pub const fn met(&self, ban: &Ban) -> bool {
        self.serial == ban.serial as u32
    }
}

/// Clients that a CPU remembers, as a power of two.
pub const MEMO_BITS: u32 = 10;

/// The place of a packet's client. An attacker that chooses addresses with the same place only causes a look-up for
/// each packet.
#[must_use]
#[inline(always)]
pub const fn place(flow: &FlowKey) -> u32 {
    let [a, b] = flow.client;
    /// 2^32 divided by the golden ratio: it spreads neighbouring addresses.
    const SPREAD: u32 = 0x9e37_79b1;
    let folded = a ^ b.rotate_left(13);
    let folded = (folded ^ folded >> 32) as u32;
    folded.swap_bytes().wrapping_mul(SPREAD) >> (32 - MEMO_BITS)
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::collections::BTreeSet;

    use super::*;

    fn flow(address: u32) -> FlowKey {
        FlowKey::new([address, 0, 0, 0], 5, [9; 4], 853, false)
    }

    /// Goal: an entry is used only for its own client, its generation of the lists, and, for a ban, its tick. Method:
    /// one difference at a time.
    #[test]
    fn a_memo_is_void_when_anything_changed() {
        let client = flow(7).client;
        let cached = CachedClient {
            client,
            version: 4,
            generation: 3,
            standing: 2,
            tick: 10,
            ..CachedClient::default()
        };
        assert_eq!(cached.recall(&flow(7), 3, || 10), Some(Standing::Banned));
        assert_eq!(cached.recall(&flow(8), 3, || 10), None, "another client");
        assert_eq!(cached.recall(&flow(7), 4, || 10), None, "other lists");
        assert_eq!(cached.recall(&flow(7), 3, || 11), None, "a ban may have ended");
        assert_eq!(cached.recall(&FlowKey { version: 6, ..flow(7) }, 3, || 10), None, "another IP version");
        for other in [[7, 0], [0, client[0]], [client[0], 1]] {
            assert_eq!(cached.recall(&FlowKey { client: other, ..flow(7) }, 3, || 10), None, "{other:?}");
        }
        let of_engine = CachedClient { standing: Standing::NothingNew as u32, ..cached };
        assert_eq!(of_engine.recall(&flow(7), 3, || 10), Some(Standing::NothingNew));
        assert_eq!(of_engine.recall(&flow(7), 3, || 11), None, "a ban of the engine may have ended");
        for standing in [Standing::Unbarred, Standing::Denied] {
            let cached = CachedClient { standing: standing as u32, ..cached };
            assert_eq!(cached.recall(&flow(7), 3, || 99), Some(standing), "no clock ends it");
        }
        assert_eq!(CachedClient::default().recall(&flow(0), 1, || 0), None, "address zero is no client");
    }

    /// Goal: a number means the standing that it was made of, and a ban of the engine refuses beginnings alone.
    ///
    #[test]
    fn an_engines_ban_refuses_beginnings_alone() {
        for standing in [Standing::Unbarred, Standing::Denied, Standing::Banned, Standing::NothingNew] {
            assert_eq!(Standing::of(standing as u32), standing);
        }
        assert_eq!(Standing::of(4), Standing::Unbarred);
        let refused = |standing: Standing| (standing.reason(true), standing.reason(false));
        assert_eq!(refused(Standing::NothingNew), (Some(Reason::Banned), None));
        assert_eq!(refused(Standing::Banned), (Some(Reason::Banned), Some(Reason::Banned)));
        assert_eq!(refused(Standing::Denied), (Some(Reason::Denied), Some(Reason::Denied)));
        assert_eq!(refused(Standing::Unbarred), (None, None));
    }

    /// Goal: hits are of the ban that a client met, and of no other. Method: two bans of one client.
    #[test]
    fn hits_are_of_one_ban() {
        let network = Network::of_flow(&flow(7), 24, 56);
        let cached = CachedClient { ban: network, serial: 3, hits: 5, ..CachedClient::default() };
        assert_eq!(cached.owes(), Some(&network));
        assert_eq!(CachedClient { hits: 0, ..cached }.owes(), None);
        let ban = |serial| Ban { serial, ..Ban::default() };
        assert!(cached.met(&ban(3)) && !cached.met(&ban(4)));
    }

    /// Goal: neighbours have places of their own, all of them in the map.
    #[test]
    fn neighbours_are_spread() {
        let places: BTreeSet<u32> = (0..256).map(|last| place(&flow(0xc633_6400 | last))).collect();
        assert_eq!(places.len(), 256);
        assert!(places.iter().all(|place| *place < 1 << MEMO_BITS));
    }
}
