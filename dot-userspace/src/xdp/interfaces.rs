//! Which interfaces get the XDP program.
//!
//! Before: the config's list, or none, and the listen addresses. After: `attach` tries each.
//! Never: takes an interface whose packets another chosen one has seen already, or one without Ethernet.

use std::{collections::BTreeMap, fs, net::IpAddr};

use nix::{
    ifaddrs::{InterfaceAddress, getifaddrs},
    net::if_::InterfaceFlags,
};

use super::XdpError;

/// An interface to attach to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) name: String,
    /// 0: there is no such interface.
    pub(super) index: u32,
    pub(super) is_loopback: bool,
    /// The config names it.
    pub(super) is_named: bool,
    is_up: bool,
    is_ethernet: bool,
    addresses: Vec<IpAddr>,
}

impl Interface {
    /// Whether it is no error when it stays off: loopback has no native mode, and nobody asked for it by name.
    pub(super) fn may_be_skipped(&self) -> bool {
        self.is_loopback && !self.is_named
    }

    /// Whether packets to an address come in here.
    fn carries(&self, address: IpAddr) -> bool {
        self.addresses.contains(&address) || self.is_loopback && address.is_loopback()
    }

    /// Why nothing can be attached to it, if so.
    pub(super) fn obstacle(&self) -> Option<&'static str> {
        match self {
            Self { index: 0, .. } => Some("no such interface"),
            Self { is_ethernet: false, .. } => Some("not Ethernet"),
            _ => None,
        }
    }
}

/// Of those present, the named interfaces; or, with no names, those that carry the addresses: all that are
/// up, for a wildcard. A named one that is not there has index 0.
pub(super) fn choose(names: &[String], addresses: &[IpAddr], present: &[Interface]) -> Vec<Interface> {
    if !names.is_empty() {
        let named = names.iter().map(|name| {
            let absent = Interface { name: name.clone(), ..Interface::default() };
            let found = present.iter().find(|interface| interface.name == *name).cloned();
            Interface { is_named: true, ..found.unwrap_or(absent) }
        });
        return named.collect();
    }
    let is_wildcard = addresses.iter().any(IpAddr::is_unspecified);
    let usable = present.iter().filter(|interface| interface.is_up && interface.is_ethernet);
    let chosen = usable.filter(|interface| {
        if is_wildcard {
            !is_above_others(&interface.name)
        } else {
            addresses.iter().any(|address| interface.carries(*address))
        }
    });
    chosen.cloned().collect()
}

/// Listen addresses that none of the chosen interfaces carries; a wildcard is on all of them.
pub(super) fn unserved(addresses: &[IpAddr], chosen: &[Interface]) -> Vec<IpAddr> {
    let is_wildcard = addresses.iter().any(IpAddr::is_unspecified);
    let is_unserved =
        |address: &&IpAddr| !is_wildcard && !chosen.iter().any(|interface| interface.carries(**address));
    addresses.iter().filter(is_unserved).copied().collect()
}

/// Every interface with its addresses.
pub(super) fn list() -> Result<Vec<Interface>, XdpError> {
    let rows = getifaddrs().map_err(|errno| XdpError::Interfaces { reason: errno.desc().into() })?;
    let mut interfaces = BTreeMap::<String, Interface>::new();
    for row in rows {
        let name = row.interface_name.clone();
        let interface = interfaces.entry(name.clone()).or_default();
        interface.name = name;
        interface.is_up |= row.flags.contains(InterfaceFlags::IFF_UP);
        interface.is_loopback |= row.flags.contains(InterfaceFlags::IFF_LOOPBACK);
        note_address(interface, &row);
    }
    Ok(interfaces.into_values().collect())
}

fn note_address(interface: &mut Interface, row: &InterfaceAddress) {
    let Some(address) = &row.address else { return };
    if let Some(v4) = address.as_sockaddr_in() {
        interface.addresses.push(v4.ip().into());
    } else if let Some(v6) = address.as_sockaddr_in6() {
        interface.addresses.push(v6.ip().into());
    } else if let Some(link) = address.as_link_addr() {
        interface.index = u32::try_from(link.ifindex()).unwrap_or(0);
        // Loopback frames carry an Ethernet header too, all zero.
        interface.is_ethernet = matches!(link.hatype(), libc::ARPHRD_ETHER | libc::ARPHRD_LOOPBACK);
    }
}

/// Whether packets come to it through another interface (bridge, bond, VLAN): that one judges them.
fn is_above_others(name: &str) -> bool {
    let Ok(entries) = fs::read_dir(format!("/sys/class/net/{name}")) else { return false };
    entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("lower_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: loopback listeners attach to loopback and to nothing else. Method: asks the machine itself.
    #[test]
    fn loopback_address_chooses_loopback() {
        let chosen = choose(&[], &["127.0.0.1".parse().unwrap()], &list().unwrap());
        assert_eq!(chosen.len(), 1);
        assert!(chosen[0].is_loopback && chosen[0].index > 0 && chosen[0].obstacle().is_none());
        assert!(chosen[0].may_be_skipped());
    }

    /// Goal: a misspelt name is kept, with its obstacle, so that the report can name it.
    #[test]
    fn absent_interface_is_an_obstacle() {
        let chosen = choose(&["no-such-nic".into()], &[], &list().unwrap());
        assert_eq!(chosen[0].obstacle(), Some("no such interface"));
        assert!(!chosen[0].may_be_skipped());
    }
}
