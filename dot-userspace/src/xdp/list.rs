//! Lists of client prefixes, each in two tries, one for each IP version, which change without a gap.
//!
//! Before: the config's prefixes. After: XDP asks the tries about each packet's source.
//! Holds: what is in the tries, so that a reload knows what to add and what to remove.
//! Never: empties a list to fill it again: a prefix that is on the old list and on the new one is on it all the time.

use std::collections::BTreeSet;

use aya::{
    Ebpf,
    maps::{
        MapData, MapError,
        lpm_trie::{Key, LpmTrie},
    },
};
use dot_common::{maps, prefix::ClientPrefix, settings::version_bit};
use ipnet::IpNet;

use super::{
    XdpError,
    attach::{refused, take},
    error::innermost,
};
use crate::config;

/// Who gets nothing, and whom no limit looks at.
pub(super) struct Lists {
    deny: List,
    allow: List,
    /// Since the kernel half was told.
    pub(super) has_changed: bool,
}

/// What was on both lists.
pub(super) struct Before {
    deny: Vec<IpNet>,
    allow: Vec<IpNet>,
}

impl Lists {
    /// Takes the maps of both out of the object.
    pub(super) fn take(object: &mut Ebpf) -> Result<Self, XdpError> {
        Ok(Self {
            deny: List::take(object, "xdp.deny", maps::DENY4, maps::DENY6)?,
            allow: List::take(object, "xdp.allow", maps::ALLOW4, maps::ALLOW6)?,
            has_changed: false,
        })
    }

    /// Adds what the config lists and is not there yet; says what was there. After an error all is as it was.
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

    /// Removes what the config does not list.
    pub(super) fn shrink(&mut self, config: &config::Xdp) {
        self.has_changed = true;
        self.deny.shrink(&config.deny);
        self.allow.shrink(&config.allow);
    }

    /// Whether no limit looks at a client.
    pub(super) fn allow(&self, client: ClientPrefix) -> bool {
        let address = client.address();
        self.allow.held.iter().any(|prefix| prefix.contains(&address))
    }

    /// Takes back what [`Lists::grow`] added.
    pub(super) fn restore(&mut self, before: &Before) {
        self.has_changed = true;
        self.deny.shrink(&before.deny);
        self.allow.shrink(&before.allow);
    }
}

/// Two tries, and what is in them.
pub(super) struct List {
    /// The config's key, or a name for people: for errors.
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

    /// Adds what is not there yet, and removes nothing. After an error the list is as it was.
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

    /// Removes what is not among these, and adds nothing.
    pub(super) fn shrink(&mut self, prefixes: &[IpNet]) {
        self.retain(&prefixes.iter().map(IpNet::trunc).collect());
    }

    /// What is on the list.
    pub(super) fn prefixes(&self) -> Vec<IpNet> {
        self.held.iter().copied().collect()
    }

    fn retain(&mut self, wanted: &BTreeSet<IpNet>) {
        for prefix in self.held.difference(wanted).copied().collect::<Vec<_>>() {
            match self.remove(prefix) {
                Ok(()) | Err(MapError::KeyNotFound) => {
                    self.held.remove(&prefix);
                }
                // Still held, so that the next reload tries again.
                Err(error) => tracing::error!("{}: {prefix} stays: {}", self.key, innermost(&error)),
            }
        }
    }

    fn insert(&mut self, prefix: IpNet) -> Result<(), MapError> {
        let bits = u32::from(prefix.prefix_len());
        match prefix {
            IpNet::V4(prefix) => self.v4.insert(&Key::new(bits, prefix.addr().octets()), 1, 0),
            IpNet::V6(prefix) => self.v6.insert(&Key::new(bits, prefix.addr().octets()), 1, 0),
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

/// The IP versions that a list has entries of, as the kernel half's settings say it.
pub(super) fn versions(prefixes: &[IpNet]) -> u8 {
    prefixes.iter().fold(0, |bits, prefix| bits | version_bit(matches!(prefix, IpNet::V6(_))))
}
