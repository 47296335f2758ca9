//! Asks the kernel for this machine's addresses: those to which it accepts packets.
//!
//! Before: interfaces, addresses or routes may have changed. After: `local` writes them into the kernel half's maps.
//! Holds: one question over netlink for each kind of route, and the reading of answers, which is pure. Routes of kind
//! local are every address of every interface, of either IP version, also secondary ones, 127.0.0.0/8 and prefixes that
//! were made local (`ip route add local`), in the tables of VRFs too; routes of kind broadcast and anycast count as
//! well.
//! Never: asks for other routes, of which a router has a million; accepts a default route of another table, because a
//! transparent proxy makes everything local for the packets that it marked, which says nothing about other packets.
//!
//! Source: rtnetlink(7), netlink(7).

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use dot_common::maps::LOCAL_MAX;
use ipnet::IpNet;
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};

use super::netlink;

/// Numbers of the kernel's interface (linux/netlink.h, linux/rtnetlink.h).
pub(super) mod numbers {
    pub(in super::super) const RTM_NEWROUTE: u16 = 24;
    pub(in super::super) const RTM_DELROUTE: u16 = 25;
    pub(in super::super) const RTN_LOCAL: u8 = 2;
    pub(in super::super) const RTN_BROADCAST: u8 = 3;
    pub(in super::super) const RTN_ANYCAST: u8 = 4;
    pub(super) const RTM_GETROUTE: u16 = 26;
    pub(in super::super) const NLMSG_ERROR: u16 = 2;
    pub(in super::super) const NLMSG_DONE: u16 = 3;
    /// NLM_F_REQUEST and NLM_F_DUMP.
    pub(in super::super) const LIST: u16 = 0x301;
    /// NLM_F_DUMP_INTR.
    pub(super) const INTERRUPTED: u16 = 0x10;
    pub(super) const RTA_DST: u16 = 1;
    pub(super) const RTA_TABLE: u16 = 15;
    pub(super) const TABLE_LOCAL: u32 = 255;
    pub(in super::super) const AF_INET: u8 = 2;
    pub(in super::super) const AF_INET6: u8 = 10;
}

/// The routes to this machine: routes of kind local, broadcast and anycast (RTN_LOCAL and its neighbours).
const KINDS: [u8; 3] = [numbers::RTN_LOCAL, numbers::RTN_BROADCAST, numbers::RTN_ANYCAST];
pub(super) const HEADER_OCTETS: usize = 16;
const ROUTE_OCTETS: usize = 12;
/// How often a question is repeated whose answer changed while it was given.
const TRIES: u32 = 3;

/// Every local prefix of one IP version.
///
/// # Errors
/// The kernel refused the question, or there are more prefixes than the kernel half's map can hold.
pub(super) fn local(is_v6: bool) -> io::Result<BTreeSet<IpNet>> {
    let socket = netlink::open(NETLINK_ROUTE)?;
    // Without this option the kernel answers with every route, and this function filters them.
    let _ = socket.set_netlink_get_strict_chk(true);
    let mut found = BTreeSet::new();
    for kind in KINDS {
        ask(&socket, is_v6, kind, &mut found)?;
    }
    Ok(found)
}

fn ask(socket: &Socket, is_v6: bool, kind: u8, found: &mut BTreeSet<IpNet>) -> io::Result<()> {
    for _ in 0..TRIES {
        socket.send(&question(is_v6, kind), 0)?;
        let mut was_interrupted = false;
        loop {
            let octets = netlink::receive(socket)?;
            let end = read(&octets, is_v6, found)?;
            if found.len() > LOCAL_MAX as usize {
                let message = format!("more than {LOCAL_MAX} local prefixes");
                return Err(io::Error::other(message));
            }
            was_interrupted |= end.was_interrupted;
            if end.is_last {
                break;
            }
        }
        if !was_interrupted {
            break;
        }
    }
    Ok(())
}

/// RTM_GETROUTE for all routes of a kind.
fn question(is_v6: bool, kind: u8) -> Vec<u8> {
    let octets = (HEADER_OCTETS + ROUTE_OCTETS) as u32;
    let mut question = Vec::with_capacity(octets as usize);
    question.extend(octets.to_ne_bytes());
    question.extend(numbers::RTM_GETROUTE.to_ne_bytes());
    question.extend(numbers::LIST.to_ne_bytes());
    // Sequence number and sender: there is one question at a time, and the kernel knows the sender.
    question.extend([0; 8]);
    // struct rtmsg: family, lengths, service, table, protocol, scope, kind, flags.
    question.extend([family(is_v6), 0, 0, 0, 0, 0, 0, kind, 0, 0, 0, 0]);
    question
}

fn family(is_v6: bool) -> u8 {
    if is_v6 { numbers::AF_INET6 } else { numbers::AF_INET }
}

/// The end of a part of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct End {
    /// Nothing follows.
    is_last: bool,
    /// Routes changed while the kernel listed them.
    was_interrupted: bool,
}

/// Reads the messages of one datagram, and notes the local prefixes among them. Malformed messages are skipped.
fn read(mut octets: &[u8], is_v6: bool, found: &mut BTreeSet<IpNet>) -> io::Result<End> {
    let mut end = End::default();
    while let Some((message, kind, flags, rest)) = next(octets) {
        end.was_interrupted |= flags & numbers::INTERRUPTED != 0;
        match kind {
            numbers::NLMSG_DONE => end.is_last = true,
            numbers::NLMSG_ERROR => {
                let code = message.first_chunk::<4>().map_or(0, |code| i32::from_ne_bytes(*code));
                if code != 0 {
                    return Err(io::Error::from_raw_os_error(-code));
                }
                end.is_last = true;
            }
            numbers::RTM_NEWROUTE => found.extend(prefix(message, is_v6)),
            _ => {}
        }
        octets = rest;
    }
    Ok(end)
}

/// The first message: its content, kind and flags, and the octets behind it.
pub(super) fn next(octets: &[u8]) -> Option<(&[u8], u16, u16, &[u8])> {
    let header = octets.get(..HEADER_OCTETS)?;
    let length = usize::try_from(u32::from_ne_bytes(*header.first_chunk()?)).ok()?;
    let kind = u16::from_ne_bytes(*header.get(4..)?.first_chunk()?);
    let flags = u16::from_ne_bytes(*header.get(6..)?.first_chunk()?);
    let content = octets.get(HEADER_OCTETS..length)?;
    Some((content, kind, flags, octets.get(aligned(length)..).unwrap_or_default()))
}

/// The destination of a local route.
fn prefix(route: &[u8], is_v6: bool) -> Option<IpNet> {
    let &[of_family, bits, _, _, table, _, _, kind] = route.first_chunk::<8>()?;
    if of_family != family(is_v6) || !KINDS.contains(&kind) {
        return None;
    }
    let mut table = u32::from(table);
    let mut address: IpAddr = if is_v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    let mut attributes = route.get(ROUTE_OCTETS..)?;
    while let Some(length) = attributes.first_chunk::<2>().map(|length| u16::from_ne_bytes(*length)) {
        let length = usize::from(length);
        let value = attributes.get(4..length)?;
        match u16::from_ne_bytes(*attributes.get(2..)?.first_chunk()?) {
            numbers::RTA_DST if is_v6 => address = Ipv6Addr::from(*value.first_chunk::<16>()?).into(),
            numbers::RTA_DST => address = Ipv4Addr::from(*value.first_chunk::<4>()?).into(),
            numbers::RTA_TABLE => table = u32::from_ne_bytes(*value.first_chunk()?),
            _ => {}
        }
        attributes = attributes.get(aligned(length)..).unwrap_or_default();
    }
    if bits == 0 && table != numbers::TABLE_LOCAL {
        return None;
    }
    IpNet::new(address, bits).ok().map(|prefix| prefix.trunc())
}

/// Messages and attributes begin at multiples of four.
pub(super) fn aligned(octets: usize) -> usize {
    octets.next_multiple_of(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A route in the kernel's form.
    fn route(kind: u8, table: u32, bits: u8, destination: &[u8]) -> Vec<u8> {
        let family = family(destination.len() == 16);
        let mut content = vec![family, bits, 0, 0, table.min(252) as u8, 2, 0, kind, 0, 0, 0, 0];
        for (number, value) in
            [(numbers::RTA_TABLE, &table.to_ne_bytes()[..]), (numbers::RTA_DST, destination)]
        {
            content.extend(((value.len() + 4) as u16).to_ne_bytes());
            content.extend(number.to_ne_bytes());
            content.extend(value);
        }
        message(numbers::RTM_NEWROUTE, 2, &content)
    }

    fn message(kind: u16, flags: u16, content: &[u8]) -> Vec<u8> {
        let mut message = ((HEADER_OCTETS + content.len()) as u32).to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend(flags.to_ne_bytes());
        message.extend([0; 8]);
        message.extend(content);
        message
    }

    fn text(found: &BTreeSet<IpNet>) -> Vec<String> {
        found.iter().map(ToString::to_string).collect()
    }

    /// Goal: local routes are found in every table; other routes, and those that a transparent proxy makes local, are
    /// not. Method: an answer built by hand.
    #[test]
    fn local_routes_are_read() {
        let answer = [
            route(numbers::RTN_LOCAL, 255, 8, &[127, 0, 0, 0]),
            route(numbers::RTN_LOCAL, 1001, 32, &[192, 0, 2, 7]),
            route(numbers::RTN_BROADCAST, 255, 32, &[192, 0, 2, 255]),
            route(1, 254, 24, &[198, 51, 100, 0]),
            route(numbers::RTN_LOCAL, 100, 0, &[0, 0, 0, 0]),
            message(numbers::NLMSG_DONE, 2, &[0; 4]),
        ];
        let mut found = BTreeSet::new();
        let end = read(&answer.concat(), false, &mut found).unwrap();
        assert!(end.is_last && !end.was_interrupted);
        assert_eq!(text(&found), ["127.0.0.0/8", "192.0.2.7/32", "192.0.2.255/32"]);
    }

    /// Goal: an error is returned, an interrupted answer is noticed, and truncated octets cause no panic. Method: an
    /// answer truncated at every length.
    #[test]
    fn broken_answers_are_refused_or_skipped() {
        let mut found = BTreeSet::new();
        let refusal = message(numbers::NLMSG_ERROR, 0, &(-1i32).to_ne_bytes());
        assert_eq!(read(&refusal, false, &mut found).unwrap_err().raw_os_error(), Some(1));
        let interrupted = message(numbers::NLMSG_DONE, numbers::INTERRUPTED, &[0; 4]);
        let end = read(&interrupted, false, &mut found).unwrap();
        assert!(end.is_last && end.was_interrupted);
        let answer = route(numbers::RTN_ANYCAST, 255, 128, &[0xfd; 16]);
        for cut in 0..answer.len() {
            let _ = read(&answer[..cut], true, &mut found);
            assert!(found.is_empty(), "{cut}");
        }
        let _ = read(&answer, true, &mut found);
        assert_eq!(found.len(), 1);
    }

    /// Goal: the answer of this machine's kernel has loopback. Method: asks it.
    #[test]
    fn loopback_is_local() {
        let found = local(false).unwrap();
        assert!(found.iter().any(|prefix| prefix.contains(&IpAddr::from([127, 0, 0, 1]))), "{found:?}");
    }
}
