//! Lists of client prefixes, each in two tries, one for each IP version, which change without a gap.
//!
//! Before: the config's prefixes. After: XDP looks each packet's source up in the tries.
//! Holds: the content of the tries, so that a reload knows what to add and remove.
//! Never: empties a list to fill it again: a prefix on both the old and the new list is never off it.

use std::{collections::BTreeSet, net::IpAddr};

use aya::{
    Ebpf,
    maps::{
        MapData, MapError,
        lpm_trie::{Key, LpmTrie},
    },
};
use dot_common::{maps, settings::version_bit};
use ipnet::IpNet;

use super::{
    XdpError,
    attach::{refused, take},
    entries,
    error::innermost,
};
use crate::config;

/// The deny list, and the list of clients without limits.
pub(super) struct Lists {
    deny: List,
    allow: List,
    /// Set when the kernel half needs new settings.
    pub(super) has_changed: bool,
}

/// The content of both lists before a change.
pub(super) struct Before {
    deny: Vec<IpNet>,
    allow: Vec<IpNet>,
}

impl Lists {
    /// Takes the maps of both lists out of the object.
    pub(super) fn take(object: &mut Ebpf) -> Result<Self, XdpError> {
        Ok(Self {
            deny: List::take(object, "xdp.deny", maps::DENY4, maps::DENY6)?,
            allow: List::take(object, "xdp.allow", maps::ALLOW4, maps::ALLOW6)?,
            has_changed: false,
        })
    }

    /// Adds missing prefixes of the config; returns what was there before. After an error nothing has changed.
    pub(super) fn grow(&mut self, config: &config::Xdp) -> Result<Before, XdpError> {
        let before = Before { deny: self.deny.prefixes(), allow: self.allow.prefixes() };
        self.has_changed = true;
        self.deny.grow(&config.deny)?;
        if let Err(error) = self.allow.grow(&config.allow) {
            self.deny.shrink(&before.deny);
            return Err(error);
        }
        Ok(before)
    }

    /// Removes prefixes that the config does not list.
    pub(super) fn shrink(&mut self, config: &config::Xdp) {
        self.has_changed = true;
        self.deny.shrink(&config.deny);
        self.allow.shrink(&config.allow);
    }

    /// Whether a client has no limits.
    pub(super) fn allow(&self, address: IpAddr) -> bool {
        self.allow.held.iter().any(|prefix| prefix.contains(&address))
    }

    /// Takes back what [`Lists::grow`] added.
    pub(super) fn restore(&mut self, before: &Before) {
        self.has_changed = true;
        self.deny.shrink(&before.deny);
        self.allow.shrink(&before.allow);
    }
}

/// Two tries, and their content.
pub(super) struct List {
    /// The config key, or a name, for errors.
    key: &'static str,
    v4: LpmTrie<MapData, [u8; 4], u32>,
    v6: LpmTrie<MapData, [u8; 16], u32>,
    held: BTreeSet<IpNet>,
}

impl List {
    /// Takes both maps out of the object.
    pub(super) fn take(object: &mut Ebpf, key: &'static str, v4: &str, v6: &str) -> Result<Self, XdpError> {
        Ok(Self {
            key,
            v4: LpmTrie::try_from(take(object, v4)?).map_err(|error| refused(v4, &error))?,
            v6: LpmTrie::try_from(take(object, v6)?).map_err(|error| refused(v6, &error))?,
            held: BTreeSet::new(),
        })
    }

    /// Adds missing prefixes, and removes none. After an error the list has not changed.
    pub(super) fn grow(&mut self, prefixes: &[IpNet]) -> Result<(), XdpError> {
        let before = self.held.clone();
        for prefix in prefixes.iter().map(IpNet::trunc) {
            if self.held.contains(&prefix) {
                continue;
            }
            if let Err(error) = self.insert(prefix) {
                self.retain(&before);
                return Err(XdpError::List {
                    key: self.key,
                    prefix: prefix.to_string(),
                    reason: innermost(&error),
                });
            }
            self.held.insert(prefix);
        }
        Ok(())
    }

    /// Removes prefixes that are not among these, and adds none.
    pub(super) fn shrink(&mut self, prefixes: &[IpNet]) {
        self.retain(&prefixes.iter().map(IpNet::trunc).collect());
    }

    /// The content of the list.
    pub(super) fn prefixes(&self) -> Vec<IpNet> {
        self.held.iter().copied().collect()
    }

    fn retain(&mut self, wanted: &BTreeSet<IpNet>) {
        for prefix in self.held.difference(wanted).copied().collect::<Vec<_>>() {
            match self.remove(prefix) {
                Ok(()) | Err(MapError::KeyNotFound) => {
                    self.held.remove(&prefix);
                }
                // It stays in this list, so that the next reload tries again.
                Err(error) => tracing::error!("{}: {prefix} stays: {}", self.key, innermost(&error)),
            }
        }
    }

    fn insert(&mut self, prefix: IpNet) -> Result<(), MapError> {
        let bits = u32::from(prefix.prefix_len());
        match prefix {
            IpNet::V4(prefix) => {
                let key = Key::new(bits, prefix.addr().octets());
                entries::insert(|| self.v4.insert(&key, 1, 0))
            }
            IpNet::V6(prefix) => {
                let key = Key::new(bits, prefix.addr().octets());
                entries::insert(|| self.v6.insert(&key, 1, 0))
            }
        }
    }

    fn remove(&mut self, prefix: IpNet) -> Result<(), MapError> {
        let bits = u32::from(prefix.prefix_len());
        match prefix {
            IpNet::V4(prefix) => self.v4.remove(&Key::new(bits, prefix.addr().octets())),
            IpNet::V6(prefix) => self.v6.remove(&Key::new(bits, prefix.addr().octets())),
        }
    }
}

/// The IP versions with entries in a list, in the form of the kernel half's settings.
pub(super) fn versions(prefixes: &[IpNet]) -> u8 {
    prefixes.iter().fold(0, |bits, prefix| bits | version_bit(matches!(prefix, IpNet::V6(_))))
}
