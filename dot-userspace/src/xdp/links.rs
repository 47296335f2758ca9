//! Asks the kernel for its interfaces, their kinds, and the bridges or bonds of which they are ports.
//!
//! Before: `interfaces` lists them. After: it can distinguish tunnels, bridges and the ends of containers.
//! Holds: one question over netlink, and the reading of its answer, which is pure.
//! Never: asks for the counters of interfaces.
//!
//! Source: rtnetlink(7) (RTM_GETLINK), linux/if_link.h.

use std::{collections::BTreeMap, io};

use netlink_sys::protocols::NETLINK_ROUTE;

use super::{
    netlink,
    routes::{HEADER_OCTETS, aligned, next, numbers},
};

/// The kernel's data about an interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Link {
    /// Its number.
    pub(super) index: u32,
    /// ARPHRD_ETHER and its like.
    pub(super) hardware: u16,
    /// "veth", "bridge", "vxlan", …; empty for a network card.
    pub(super) kind: String,
    /// The number of the bridge, bond or similar that it is a port of; 0: none.
    pub(super) master: u32,
    /// The number of the interface that it lies on, as a VLAN does; 0: none, or one of another namespace.
    pub(super) link: u32,
    pub(super) mtu: u32,
    /// Receive and transmit queues.
    pub(super) queues: (u32, u32),
    /// The bus of the device behind it; empty if there is none.
    pub(super) bus: String,
}

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const LINK_OCTETS: usize = 16;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NUM_TX_QUEUES: u16 = 31;
const IFLA_NUM_RX_QUEUES: u16 = 32;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_PARENT_DEV_BUS_NAME: u16 = 57;
const IFLA_INFO_KIND: u16 = 1;

/// Every interface, by its name.
pub(super) fn list() -> io::Result<BTreeMap<String, Link>> {
    let socket = netlink::open(NETLINK_ROUTE)?;
    socket.send(&question(), 0)?;
    let mut found = BTreeMap::new();
    loop {
        let octets = netlink::receive(&socket)?;
        if read(&octets, &mut found)? {
            return Ok(found);
        }
    }
}

/// RTM_GETLINK for all.
fn question() -> Vec<u8> {
    let octets = (HEADER_OCTETS + LINK_OCTETS) as u32;
    let mut question = octets.to_ne_bytes().to_vec();
    question.extend(RTM_GETLINK.to_ne_bytes());
    question.extend(numbers::LIST.to_ne_bytes());
    question.resize(octets as usize, 0);
    question
}

/// Reads the messages of one datagram; returns whether the last one was among them.
fn read(mut octets: &[u8], found: &mut BTreeMap<String, Link>) -> io::Result<bool> {
    while let Some((message, kind, _, rest)) = next(octets) {
        match kind {
            numbers::NLMSG_DONE => return Ok(true),
            numbers::NLMSG_ERROR => {
                let code = message.first_chunk::<4>().map_or(0, |code| i32::from_ne_bytes(*code));
                return if code == 0 { Ok(true) } else { Err(io::Error::from_raw_os_error(-code)) };
            }
            RTM_NEWLINK => found.extend(link(message)),
            _ => {}
        }
        octets = rest;
    }
    Ok(false)
}

fn link(message: &[u8]) -> Option<(String, Link)> {
    let hardware = u16::from_ne_bytes(*message.get(2..)?.first_chunk()?);
    let index = u32::from_ne_bytes(*message.get(4..)?.first_chunk()?);
    let (mut name, mut is_elsewhere) = (String::new(), false);
    let mut link = Link { index, hardware, ..Link::default() };
    for (number, value) in attributes(message.get(LINK_OCTETS..)?) {
        match number {
            IFLA_IFNAME => name = text(value),
            IFLA_MTU => link.mtu = u32::from_ne_bytes(*value.first_chunk()?),
            IFLA_NUM_RX_QUEUES => link.queues.0 = u32::from_ne_bytes(*value.first_chunk()?),
            IFLA_NUM_TX_QUEUES => link.queues.1 = u32::from_ne_bytes(*value.first_chunk()?),
            IFLA_LINK => link.link = u32::from_ne_bytes(*value.first_chunk()?),
            IFLA_LINK_NETNSID => is_elsewhere = true,
            IFLA_PARENT_DEV_BUS_NAME => link.bus = text(value),
            IFLA_MASTER => link.master = u32::from_ne_bytes(*value.first_chunk()?),
            IFLA_LINKINFO => {
                let kind = attributes(value).find(|(number, _)| *number == IFLA_INFO_KIND);
                link.kind = kind.map(|(_, kind)| text(kind)).unwrap_or_default();
            }
            _ => {}
        }
    }
    if is_elsewhere {
        link.link = 0;
    }
    Some((name, link))
}

/// A string from the kernel, which ends with a zero.
pub(super) fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.strip_suffix(&[0]).unwrap_or(value)).into_owned()
}

/// Number and value of each attribute; a truncated one ends the list.
pub(super) fn attributes(mut octets: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    /// NLA_F_NESTED and NLA_F_NET_BYTEORDER.
    const FLAGS: u16 = 0xc000;
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*octets.first_chunk()?));
        let number = u16::from_ne_bytes(*octets.get(2..)?.first_chunk()?) & !FLAGS;
        let value = octets.get(4..length)?;
        octets = octets.get(aligned(length)..).unwrap_or_default();
        Some((number, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An attribute with its padding.
    fn attribute(number: u16, value: &[u8]) -> Vec<u8> {
        let mut octets = ((4 + value.len()) as u16).to_ne_bytes().to_vec();
        octets.extend(number.to_ne_bytes());
        octets.extend(value);
        octets.resize(aligned(octets.len()), 0);
        octets
    }

    /// Goal: kind and master are read, and no truncated answer causes a panic. Method: a port of a bridge, in the
    /// kernel's form.
    #[test]
    fn kind_and_master_are_read() {
        let kind = [attribute(IFLA_INFO_KIND, b"veth\0"), attribute(2, &[7; 9])].concat();
        let mut message = vec![0; LINK_OCTETS];
        message[2] = 1;
        message[4] = 9;
        message.extend(attribute(3, b"eth0\0"));
        message.extend(attribute(IFLA_MASTER, &5u32.to_ne_bytes()));
        message.extend(attribute(IFLA_LINKINFO | 0x8000, &kind));
        let mut octets = ((HEADER_OCTETS + message.len()) as u32).to_ne_bytes().to_vec();
        octets.extend(RTM_NEWLINK.to_ne_bytes());
        octets.extend([0; 10]);
        octets.extend(&message);
        let mut found = BTreeMap::new();
        assert!(!read(&octets, &mut found).unwrap());
        assert_eq!(
            found["eth0"],
            Link { index: 9, hardware: 1, kind: "veth".into(), master: 5, ..Link::default() }
        );
        for cut in 0..octets.len() {
            let _ = read(&octets[..cut], &mut BTreeMap::new());
        }
    }

    /// Goal: the answer of this machine's kernel has loopback, which has no kind. Method: asks it.
    #[test]
    fn loopback_has_no_kind() {
        assert_eq!(list().unwrap()["lo"].kind, "");
    }
}
