//! The interfaces of the machine, and what can be attached to each.
//!
//! Before: the machine has interfaces. After: `paths` chooses among them.
//! Holds: the kernel's data about an interface, as plain values. Never: chooses; relies on sysfs, which may belong to
//! another namespace.

use std::{collections::BTreeMap, fs, net::IpAddr};

use nix::{ifaddrs::getifaddrs, net::if_::InterfaceFlags};

use super::{
    XdpError,
    links::{self, Link},
};
use crate::config::XdpMode;

/// An interface to attach to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) name: String,
    /// 0: there is no such interface.
    pub(super) index: u32,
    pub(super) is_loopback: bool,
    /// The config names it.
    pub(super) is_named: bool,
    /// The place on it at which packets are judged.
    pub(super) way: Way,
    pub(super) is_up: bool,
    pub(super) is_ethernet: bool,
    /// The kernel's name for its kind: "veth", "bridge", …; empty for a network card.
    pub(super) kind: String,
    /// Whether it is a port of a bridge, bond or similar.
    pub(super) is_port: bool,
    /// Whether there is a device behind it, of hardware or of a hypervisor.
    pub(super) is_card: bool,
    /// Whether it shares its packets with another interface below it: Hyper-V's does, with accelerated networking.
    pub(super) is_shared: bool,
    pub(super) mtu: u32,
    /// Receive and transmit queues.
    pub(super) queues: (u32, u32),
    pub(super) addresses: Vec<IpAddr>,
    /// The names of the interfaces through which its frames come in: a bridge's ports, a VLAN's device.
    pub(super) lowers: Vec<String>,
}

/// The place on an interface at which packets are judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Way {
    /// By XDP, as the config says.
    #[default]
    Xdp,
    /// At tc ingress.
    Ingress,
    /// Loopback beside others, or the end of a veth in a container in which dotd runs: by XDP if the config says `native` or
    /// `generic`, at tc ingress if it says `auto`. XDP in native mode costs the container three quarters of its throughput, and
    /// generic XDP on loopback copies each packet between dotd and its backend.
    OwnEnd,
}

impl Way {
    /// Whether XDP is tried.
    pub(super) fn is_by_xdp(self, mode: XdpMode) -> bool {
        match self {
            Self::Xdp => true,
            Self::OwnEnd => mode != XdpMode::Auto,
            Self::Ingress => false,
        }
    }
}

impl Interface {
    /// Whether XDP may be off on it without an error: loopback has no native mode, and the config does not name it.
    pub(super) fn may_be_skipped(&self) -> bool {
        self.is_loopback && !self.is_named
    }

    /// Whether packets to an address come in here.
    pub(super) fn carries(&self, address: IpAddr) -> bool {
        self.addresses.contains(&address) || self.is_loopback && address.is_loopback()
    }

    /// The reason why nothing can be attached to it, if there is one.
    pub(super) fn obstacle(&self) -> Option<&'static str> {
        (self.index == 0).then_some("no such interface")
    }
}

/// Kinds of interfaces whose frames passed an interface below them unchanged.
const TRANSPARENT: [&str; 9] =
    ["bridge", "bond", "team", "vlan", "macvlan", "macvtap", "ipvlan", "ipvtap", "vrf"];

/// Every interface with its addresses.
pub(super) fn list() -> Result<Vec<Interface>, XdpError> {
    let refused = |reason: String| XdpError::Interfaces { reason };
    let links = links::list().map_err(|error| refused(error.to_string()))?;
    let mut interfaces: BTreeMap<String, Interface> =
        links.iter().map(|(name, link)| (name.clone(), interface(name, link, &links))).collect();
    for row in getifaddrs().map_err(|errno| refused(errno.desc().into()))? {
        // An interface that appeared after the other question causes a notification, which is followed.
        let Some(interface) = interfaces.get_mut(&row.interface_name) else { continue };
        interface.is_up |= row.flags.contains(InterfaceFlags::IFF_UP);
        interface.is_loopback |= row.flags.contains(InterfaceFlags::IFF_LOOPBACK);
        let Some(address) = &row.address else { continue };
        if let Some(v4) = address.as_sockaddr_in() {
            interface.addresses.push(v4.ip().into());
        } else if let Some(v6) = address.as_sockaddr_in6() {
            interface.addresses.push(v6.ip().into());
        }
    }
    Ok(interfaces.into_values().collect())
}

fn interface(name: &str, link: &Link, links: &BTreeMap<String, Link>) -> Interface {
    // For other kinds it is not known whether frames come in unchanged through the interface below.
    let is_transparent = link.kind.is_empty() || TRANSPARENT.contains(&link.kind.as_str());
    let is_below = |other: &Link| {
        is_transparent
            && other.index != link.index
            && (other.master == link.index || other.index == link.link)
    };
    Interface {
        name: name.to_owned(),
        index: link.index,
        // Loopback frames carry an Ethernet header too, all zero.
        is_ethernet: matches!(link.hardware, libc::ARPHRD_ETHER | libc::ARPHRD_LOOPBACK),
        kind: link.kind.clone(),
        is_port: link.master != 0,
        is_card: !link.bus.is_empty(),
        is_shared: link.bus == "vmbus",
        mtu: link.mtu,
        queues: link.queues,
        lowers: links.iter().filter(|(_, other)| is_below(other)).map(|(name, _)| name.clone()).collect(),
        ..Interface::default()
    }
}

/// The name of a card's driver, for messages only. A sysfs that was mounted in another network namespace shows other
/// interfaces, which may have the same name: one with another index is not meant.
pub(super) fn driver(name: &str, index: u32) -> Option<String> {
    let folder = format!("/sys/class/net/{name}");
    let found = fs::read_to_string(format!("{folder}/ifindex")).ok()?;
    if found.trim().parse() != Ok(index) {
        return None;
    }
    let path = fs::read_link(format!("{folder}/device/driver")).ok()?;
    path.file_name().and_then(|name| name.to_str()).map(str::to_owned)
}
