//! The chosen interfaces, for typical machines, given as lists.

use super::{super::interfaces::list, *};

/// An interface that is up, of a kind, above others.
fn interface(name: &str, kind: &str, lowers: &[&str]) -> Interface {
    Interface {
        name: name.into(),
        index: 1,
        is_up: true,
        is_ethernet: !matches!(kind, "wireguard" | "gre" | "ppp"),
        is_loopback: name == "lo",
        kind: kind.into(),
        is_card: kind.is_empty() && name != "lo",
        lowers: lowers.iter().map(ToString::to_string).collect(),
        ..Interface::default()
    }
}

fn port(name: &str, kind: &str) -> Interface {
    Interface { is_port: true, ..interface(name, kind, &[]) }
}

fn addressed(interface: Interface, address: &str) -> Interface {
    Interface { addresses: vec![address.parse().unwrap()], ..interface }
}

/// Name and place of each, `eth0` for XDP and `eth0@tc` for tc ingress.
fn ways(chosen: &[Interface]) -> Vec<String> {
    let name = |one: &Interface| match one.way {
        Way::Xdp => one.name.clone(),
        Way::Ingress => format!("{}@tc", one.name),
        Way::OwnEnd => format!("{}@own", one.name),
    };
    chosen.iter().map(name).collect()
}

fn chosen(names: &[&str], addresses: &[&str], present: &[Interface]) -> Vec<String> {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let addresses: Vec<IpAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
    ways(&choose(&names, &addresses, present))
}

/// Goal: loopback listeners attach to loopback and to nothing else. Method: asks the machine itself.
#[test]
fn loopback_address_chooses_loopback() {
    let chosen = choose(&[], &["127.0.0.1".parse().unwrap()], &list().unwrap());
    assert_eq!(chosen.len(), 1);
    assert!(chosen[0].is_loopback && chosen[0].index > 0 && chosen[0].obstacle().is_none());
    assert!(chosen[0].may_be_skipped());
}

/// Goal: with a wildcard, cards are judged by XDP; loopback, the host's ends of containers, tunnels and interfaces without
/// Ethernet by tc; a bridge of containers once, and none of its ports; for a bridge with a card the ports are judged.
/// Method: machines as lists.
#[test]
fn a_wildcard_takes_every_way_in() {
    let lo = || interface("lo", "", &[]);
    let eth0 = || interface("eth0", "", &[]);
    let cases: [(&str, Vec<Interface>, &[&str]); 9] = [
        ("a server", vec![lo(), eth0()], &["lo@own", "eth0"]),
        (
            "without ports yet",
            vec![eth0(), interface("bond0", "bond", &[]), interface("docker0", "bridge", &[])],
            &["eth0", "bond0@tc", "docker0@tc"],
        ),
        (
            "containers behind a bridge",
            vec![
                lo(),
                eth0(),
                interface("docker0", "bridge", &["veth1", "veth2"]),
                port("veth1", "veth"),
                port("veth2", "veth"),
            ],
            &["lo@own", "eth0", "docker0@tc"],
        ),
        (
            "containers that are routed to",
            vec![lo(), eth0(), interface("cali1", "veth", &[])],
            &["lo@own", "eth0", "cali1@tc"],
        ),
        ("in a container", vec![lo(), interface("eth0", "veth", &[])], &["lo@own", "eth0@own"]),
        (
            "virtual machines on the card's bridge",
            vec![
                lo(),
                port("eth0", ""),
                interface("br0", "bridge", &["eth0", "vnet0"]),
                port("vnet0", "tun"),
            ],
            &["lo@own", "eth0", "vnet0@tc"],
        ),
        (
            "tunnels",
            vec![
                eth0(),
                interface("vxlan0", "vxlan", &[]),
                interface("wg0", "wireguard", &[]),
                interface("gre1", "gre", &[]),
                interface("macsec0", "macsec", &[]),
            ],
            &["eth0", "vxlan0@tc", "wg0@tc", "gre1@tc", "macsec0@tc"],
        ),
        (
            "VLANs over a bond",
            vec![
                port("eth0", ""),
                port("eth1", ""),
                interface("bond0", "bond", &["eth0", "eth1"]),
                interface("bond0.5", "vlan", &["bond0"]),
            ],
            &["eth0", "eth1"],
        ),
        (
            "Hyper-V with accelerated networking",
            vec![Interface { is_shared: true, lowers: vec!["vf0".into()], ..eth0() }, port("vf0", "")],
            &["eth0"],
        ),
    ];
    for (what, present, expected) in cases {
        assert_eq!(chosen(&[], &["0.0.0.0"], &present), expected, "{what}");
    }
}

/// Goal: an attached interface is replaced by one that has its packets now, and by no other. Method: a card that became
/// a port of a bridge, a container's end that became one, and neighbours.
#[test]
fn an_interface_gives_way_to_one_that_has_its_packets() {
    let present = [
        port("eth0", ""),
        interface("br0", "bridge", &["eth0"]),
        interface("br0.5", "vlan", &["br0"]),
        interface("docker0", "bridge", &["veth1"]),
        port("veth1", "veth"),
        interface("eth1", "", &[]),
    ];
    let named = |name: &str| present.iter().find(|interface| interface.name == name).unwrap();
    for (interface, other, is_covered) in [
        ("br0", "eth0", true),
        ("br0.5", "eth0", true),
        ("veth1", "docker0", true),
        ("eth0", "br0", false),
        ("eth0", "br0.5", false),
        ("eth1", "eth0", false),
        ("br0", "eth1", false),
        ("veth1", "eth0", false),
    ] {
        assert_eq!(covers(named(other), named(interface), &present), is_covered, "{interface}, {other}");
    }
}

/// Goal: with a listen address, its interface gets XDP, and the others, which accept its packets too, get tc; nothing
/// is judged twice. An address on no physical interface is treated like a wildcard. Method: lists.
#[test]
fn an_address_can_be_reached_through_every_interface() {
    let lo = || interface("lo", "", &[]);
    let two = [lo(), addressed(interface("eth0", "", &[]), "192.0.2.1"), interface("eth1", "", &[])];
    assert_eq!(chosen(&[], &["192.0.2.1"], &two), ["eth0", "eth1@tc"]);
    assert_eq!(chosen(&[], &["127.0.0.1"], &two), ["lo"]);
    assert_eq!(chosen(&[], &["198.51.100.1"], &two), Vec::<String>::new(), "no interface has it");
    let vlan = [
        interface("eth0", "", &[]),
        addressed(interface("eth0.5", "vlan", &["eth0"]), "192.0.2.1"),
        interface("wg0", "wireguard", &[]),
    ];
    assert_eq!(
        chosen(&[], &["192.0.2.1"], &vlan),
        ["eth0.5", "wg0@tc"],
        "the VLAN's frames are not judged below"
    );
    let anycast =
        [addressed(lo(), "192.0.2.53"), interface("eth0", "", &[]), interface("wg0", "wireguard", &[])];
    assert_eq!(chosen(&[], &["192.0.2.53"], &anycast), ["lo@own", "eth0", "wg0@tc"]);
    let down = [lo(), Interface { is_up: false, ..two[1].clone() }];
    assert_eq!(chosen(&[], &["192.0.2.1"], &down), Vec::<String>::new());
}

/// Goal: interfaces that the config leaves out are reported; those above or below a named interface are not left out.
/// Method: lists.
#[test]
fn what_names_leave_out_is_said() {
    let present = [
        interface("lo", "", &[]),
        port("eth0", ""),
        interface("br0", "bridge", &["eth0"]),
        interface("eth1", "", &[]),
        interface("wg0", "wireguard", &[]),
    ];
    let left = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let chosen = choose(&names, &[], &present);
        left_out(&names, &["0.0.0.0".parse().unwrap()], &present, &chosen)
    };
    assert_eq!(left(&["eth0"]), ["eth1", "wg0"]);
    assert_eq!(left(&["br0", "eth1"]), ["wg0"]);
    assert_eq!(left(&["br0", "eth1", "wg0"]), Vec::<String>::new());
    assert_eq!(left(&[]), Vec::<String>::new(), "without names nothing is left out");
}

/// Goal: no frame is judged at two named interfaces, in whatever order they are named, and a bridge's other ports are
/// still judged; a named interface without Ethernet is judged at tc, a named veth as the config says. Method: a bridge
/// over a VLAN and a tap, a VLAN, a bond, and an interface by itself.
#[test]
fn stacks_of_named_interfaces_are_resolved() {
    let present = [
        interface("eth0", "", &[]),
        interface("eth1", "", &[]),
        interface("tap0", "tun", &[]),
        interface("eth0.100", "vlan", &["eth0"]),
        interface("br0", "bridge", &["eth0.100", "tap0"]),
        interface("bond0", "bond", &["eth0", "eth1"]),
        interface("loop0", "", &["loop0", "eth1"]),
        interface("wg0", "wireguard", &[]),
        interface("veth0", "veth", &[]),
    ];
    let chosen = |names: &[&str]| chosen(names, &[], &present);
    assert_eq!(chosen(&["eth0", "eth0.100"]), ["eth0"]);
    assert_eq!(chosen(&["eth0.100", "eth0"]), ["eth0"]);
    assert_eq!(chosen(&["br0", "eth0"]), ["eth0", "tap0"]);
    assert_eq!(chosen(&["eth0.100", "br0"]), ["eth0.100", "tap0"]);
    assert_eq!(chosen(&["bond0", "eth1"]), ["eth0", "eth1"]);
    assert_eq!(chosen(&["br0", "eth1"]), ["br0", "eth1"], "a bridge alone is judged as a whole");
    assert_eq!(chosen(&["loop0", "eth1"]), ["eth1"], "no end is no harm");
    assert_eq!(chosen(&["wg0", "veth0"]), ["wg0@tc", "veth0"]);
}

/// Goal: a misspelt name is kept, with the reason, so that the report can show it.
#[test]
fn absent_interface_is_an_obstacle() {
    let chosen = choose(&["no-such-nic".into()], &[], &list().unwrap());
    assert_eq!(chosen[0].obstacle(), Some("no such interface"));
    assert!(!chosen[0].may_be_skipped());
}
