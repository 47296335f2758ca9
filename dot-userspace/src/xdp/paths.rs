//! The ways of a packet to a listen address, and the place on each way at which it is judged.
//!
//! Before: `interfaces` lists the machine's interfaces; the config names interfaces, or none, and has listen addresses.
//! After: each way in is covered by XDP or by tc ingress, or reported as not covered.
//! Holds: the choice, which is pure. A packet is judged once: never both on an interface and on another one through
//! which its frames came in.
//! Never: attaches.
//!
//! Linux accepts a packet to any of its addresses on any interface. So if `listen` has addresses, the interfaces that
//! carry one get XDP, and the others get tc ingress, which costs them least and resets no card.

use std::net::IpAddr;

use super::interfaces::{Interface, Way};

/// The most interfaces on top of each other.
const STACK_MAX: u32 = 8;

/// The named interfaces; or, without names, every way in. A named one that does not exist has index 0.
pub(super) fn choose(names: &[String], addresses: &[IpAddr], present: &[Interface]) -> Vec<Interface> {
    if !names.is_empty() {
        return resolve(names, present);
    }
    let is_wildcard = is_everywhere(addresses, present);
    let carries = |interface: &Interface| addresses.iter().any(|address| interface.carries(*address));
    let is_usable = |interface: &&Interface| interface.is_up && (is_wildcard || !interface.is_loopback);
    let carriers: Vec<&Interface> = if is_wildcard {
        Vec::new()
    } else {
        present.iter().filter(|interface| interface.is_up && carries(interface)).collect()
    };
    if !is_wildcard && carriers.iter().all(|interface| interface.is_loopback) {
        // Packets to 127.0.0.0/8 and ::1 come in nowhere else; an address that no interface has may be added to any of
        // them later.
        return carriers.into_iter().cloned().collect();
    }
    let mut chosen: Vec<Interface> = carriers.iter().map(|one| placed(one, way(one, present))).collect();
    for interface in present.iter().filter(is_usable) {
        let is_judged = |other: &&Interface| {
            other.name == interface.name || is_above(other, &interface.name, present, STACK_MAX)
        };
        if carriers.iter().any(is_judged) || is_idle(interface) || is_judged_elsewhere(interface, present) {
            continue;
        }
        let way = if is_wildcard { way(interface, present) } else { Way::Ingress };
        chosen.push(placed(interface, way));
    }
    chosen
}

/// Interfaces that the config does not name, and through which unjudged packets can come in.
pub(super) fn left_out(
    names: &[String],
    addresses: &[IpAddr],
    present: &[Interface],
    chosen: &[Interface],
) -> Vec<String> {
    if names.is_empty() {
        return Vec::new();
    }
    let is_beside = |interface: &Interface| {
        !interface.is_loopback
            && chosen.iter().all(|one| {
                one.name != interface.name
                    && !is_above(one, &interface.name, present, STACK_MAX)
                    && !is_above(interface, &one.name, present, STACK_MAX)
            })
    };
    let ways = choose(&[], addresses, present);
    ways.into_iter().filter(is_beside).map(|interface| interface.name).collect()
}

/// Listen addresses that none of the chosen interfaces carries; a wildcard is on all of them.
pub(super) fn unserved(addresses: &[IpAddr], chosen: &[Interface]) -> Vec<IpAddr> {
    let is_wildcard = addresses.iter().any(IpAddr::is_unspecified);
    let is_unserved =
        |address: &&IpAddr| !is_wildcard && !chosen.iter().any(|interface| interface.carries(**address));
    addresses.iter().filter(is_unserved).copied().collect()
}

/// Whether packets can come in on every interface alike: to a wildcard, and to an address that is on no physical
/// interface (loopback's, dummy's).
fn is_everywhere(addresses: &[IpAddr], present: &[Interface]) -> bool {
    let is_on_no_wire = |address: &IpAddr| {
        let carrier = present.iter().find(|interface| interface.carries(*address));
        !address.is_loopback()
            && carrier.is_some_and(|carrier| carrier.is_loopback || carrier.kind == "dummy")
    };
    addresses.iter().any(|address| address.is_unspecified() || is_on_no_wire(address))
}

fn placed(interface: &Interface, way: Way) -> Interface {
    Interface { way, ..interface.clone() }
}

/// Whether packets that come in through an interface are judged on another chosen one.
pub(super) fn covers(other: &Interface, interface: &Interface, present: &[Interface]) -> bool {
    is_above(interface, &other.name, present, STACK_MAX) || judges_for_ports(other, &interface.name, present)
}

/// The place at which packets are judged on an interface that the config does not name.
fn way(interface: &Interface, present: &[Interface]) -> Way {
    let is_tunnel = !matches!(
        interface.kind.as_str(),
        "" | "veth" | "bridge" | "bond" | "team" | "vlan" | "vrf" | "dummy"
    );
    let is_guest = is_guest(interface, present) || is_of_guests(interface, present);
    if !interface.is_ethernet || is_tunnel || is_guest {
        Way::Ingress
    } else if interface.is_loopback || interface.kind == "veth" {
        Way::OwnEnd
    } else {
        Way::Xdp
    }
}

/// The host's end of a container's or a virtual machine's interface: XDP would cost the guest most of its throughput.
/// Without any network card a veth is no guest's, because dotd itself runs in a container ([`Way::OwnEnd`]).
fn is_guest(interface: &Interface, present: &[Interface]) -> bool {
    match interface.kind.as_str() {
        "veth" => interface.is_port || present.iter().any(|other| other.is_card),
        "tun" | "netkit" => true,
        _ => false,
    }
}

/// A bridge with only guests: packets from them to this machine come in through it, and packets between them do not. A
/// bridge, bond or VRF without ports counts as one too, because XDP on it could keep a port from joining.
fn is_of_guests(interface: &Interface, present: &[Interface]) -> bool {
    let is_guest_port =
        |name: &String| present.iter().any(|port| port.name == *name && is_guest(port, present));
    match interface.kind.as_str() {
        "bridge" => interface.lowers.iter().all(is_guest_port),
        "bond" | "team" | "vrf" => interface.lowers.is_empty(),
        _ => false,
    }
}

/// Whether no packet comes in through it.
fn is_idle(interface: &Interface) -> bool {
    interface.kind == "dummy"
}

/// Whether packets that come in through it are judged on another interface: below it, or, for ports of a bridge of
/// guests and the lower part of Hyper-V's pair, above it.
fn is_judged_elsewhere(interface: &Interface, present: &[Interface]) -> bool {
    if !interface.lowers.is_empty() {
        return !interface.is_shared && !is_of_guests(interface, present);
    }
    interface.is_port && present.iter().any(|upper| judges_for_ports(upper, &interface.name, present))
}

/// Whether an interface is judged in place of those below it, and this one is below it.
fn judges_for_ports(upper: &Interface, lower: &str, present: &[Interface]) -> bool {
    upper.lowers.iter().any(|name| name == lower) && (upper.is_shared || is_of_guests(upper, present))
}

/// The named interfaces, changed so that no frame is judged twice: where one is above another named one, all interfaces
/// below it replace it, because they see its frames first.
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
        let way = if found.is_ethernet || found.index == 0 { Way::Xdp } else { Way::Ingress };
        chosen.push(Interface { is_named: true, way, ..found });
    }
}

/// Whether frames of an interface come in through another one.
fn is_above(upper: &Interface, lower: &str, present: &[Interface], depth: u32) -> bool {
    let is_below = |name: &String| {
        let next = present.iter().find(|interface| interface.name == *name);
        name == lower || depth > 0 && next.is_some_and(|next| is_above(next, lower, present, depth - 1))
    };
    upper.lowers.iter().any(is_below)
}

#[cfg(test)]
mod tests;
