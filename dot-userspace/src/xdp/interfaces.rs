//! Chooses the interfaces for the XDP program.
//!
//! Before: the config's list, or none, and the listen addresses. After: `attach` tries each.
//! Never: chooses an interface whose packets pass another chosen one, or one without Ethernet.

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
    /// Names of the interfaces that its frames come in through: a bridge's ports, a VLAN's device.
    lowers: Vec<String>,
}

impl Interface {
    /// Whether XDP may be off on it without an error: loopback has no native mode, and the config does not name it.
    pub(super) fn may_be_skipped(&self) -> bool {
        self.is_loopback && !self.is_named
    }

    /// Whether packets to an address arrive here.
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

/// Most interfaces on top of each other.
const STACK_MAX: u32 = 8;

/// The named interfaces, changed such that no frame is judged twice: an interface above another named one is replaced
/// by all interfaces below it, which see its frames first.
fn resolve(names: &[String], present: &[Interface]) -> Vec<Interface> {
    let mut chosen = Vec::new();
    for name in names {
        add(name, names, present, STACK_MAX, &mut chosen);
    }
    chosen
}

fn add(name: &str, names: &[String], present: &[Interface], depth: u32, chosen: &mut Vec<Interface>) {
    let absent = Interface { name: name.to_owned(), ..Interface::default() };
    let found = present.iter().find(|interface| interface.name == name).cloned().unwrap_or(absent);
    let is_named_below = |other: &String| other != name && is_above(&found, other, present, STACK_MAX);
    if depth > 0 && names.iter().any(is_named_below) {
        for lower in found.lowers.iter().filter(|lower| *lower != name) {
            add(lower, names, present, depth - 1, chosen);
        }
    } else if chosen.iter().all(|one| one.name != name) {
        chosen.push(Interface { is_named: true, ..found });
    }
}

/// Whether an interface's frames arrive through another one.
fn is_above(upper: &Interface, lower: &str, present: &[Interface], depth: u32) -> bool {
    let is_below = |name: &String| {
        let next = present.iter().find(|interface| interface.name == *name);
        name == lower || depth > 0 && next.is_some_and(|next| is_above(next, lower, present, depth - 1))
    };
    upper.lowers.iter().any(is_below)
}

/// The named interfaces among those present or, without names, those with the listen addresses (for a wildcard, all
/// that are up). A named one that does not exist has index 0.
pub(super) fn choose(names: &[String], addresses: &[IpAddr], present: &[Interface]) -> Vec<Interface> {
    if !names.is_empty() {
        return resolve(names, present);
    }
    let is_wildcard = addresses.iter().any(IpAddr::is_unspecified);
    let usable = present.iter().filter(|interface| interface.is_up && interface.is_ethernet);
    let chosen = usable.filter(|interface| {
        if is_wildcard {
            interface.lowers.is_empty()
        } else {
            addresses.iter().any(|address| interface.carries(*address))
        }
    });
    chosen.cloned().collect()
}

/// Listen addresses on none of the chosen interfaces; a wildcard is on all of them.
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
    for interface in interfaces.values_mut() {
        interface.lowers = lowers(&interface.name);
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
        // Loopback frames have an Ethernet header too, all zero.
        interface.is_ethernet = matches!(link.hatype(), libc::ARPHRD_ETHER | libc::ARPHRD_LOOPBACK);
    }
}

/// The interfaces through which an interface's packets arrive (bridge, bond, VLAN): those judge them.
fn lowers(name: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(format!("/sys/class/net/{name}")) else { return Vec::new() };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    names.filter_map(|name| name.strip_prefix("lower_").map(str::to_owned)).collect()
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

    /// Goal: no frame is judged at two named interfaces, in whatever order they are named, and no frame of a bridge's
    /// other ports is missed. Method: a bridge over a VLAN and a tap, a VLAN, a bond, and a separate interface. Covers:
    ///
    #[test]
    fn stacks_of_named_interfaces_are_resolved() {
        let interface = |name: &str, lowers: &[&str]| Interface {
            name: name.into(),
            index: 1,
            lowers: lowers.iter().map(ToString::to_string).collect(),
            ..Interface::default()
        };
        let present = [
            interface("eth0", &[]),
            interface("eth1", &[]),
            interface("tap0", &[]),
            interface("eth0.100", &["eth0"]),
            interface("br0", &["eth0.100", "tap0"]),
            interface("bond0", &["eth0", "eth1"]),
            interface("loop0", &["loop0", "eth1"]),
        ];
        let chosen = |names: &[&str]| -> Vec<String> {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            choose(&names, &[], &present).into_iter().map(|one| one.name).collect()
        };
        assert_eq!(chosen(&["eth0", "eth0.100"]), ["eth0"]);
        assert_eq!(chosen(&["eth0.100", "eth0"]), ["eth0"]);
        assert_eq!(chosen(&["br0", "eth0"]), ["eth0", "tap0"]);
        assert_eq!(chosen(&["eth0.100", "br0"]), ["eth0.100", "tap0"]);
        assert_eq!(chosen(&["bond0", "eth1"]), ["eth0", "eth1"]);
        assert_eq!(chosen(&["br0", "eth1"]), ["br0", "eth1"], "a bridge alone is judged as a whole");
        assert_eq!(chosen(&["loop0", "eth1"]), ["eth1"], "no end is no harm");
    }

    /// Goal: an unknown name is kept, with its obstacle, so that the report can show it.
    #[test]
    fn absent_interface_is_an_obstacle() {
        let chosen = choose(&["no-such-nic".into()], &[], &list().unwrap());
        assert_eq!(chosen[0].obstacle(), Some("no such interface"));
        assert!(!chosen[0].may_be_skipped());
    }
}
