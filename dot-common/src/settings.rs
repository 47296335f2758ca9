//! The settings that the loader gives the kernel half: the ports of dotd, and how strict each gate is.
//!
//! Before: the config file. After: [`crate::packet`] asks for a port's service, [`crate::judge`] for a gate's mode, and
//! whether a list has entries. Only the loader writes; the kernel half reads.
//! Holds: two kinds. [`Ports`] are constants of the loaded programs, which cannot change. [`Settings`] are the value of
//! a map.
//! Never: holds an address: lists are maps of their own, and the kernel does the routing.

use crate::{packet::Service, rate::Rate};

/// Version of all map shapes and of their meaning: a folder of pins belongs to one schema.
pub const SCHEMA: u32 = 7;

/// Most DNS-over-TLS ports.
pub const DOT_PORTS_MAX: usize = 4;

/// Which service a port has.
pub trait Services {
    /// The service of a port.
    fn service(&self, port: u16) -> Option<Service>;
}

/// The ports of dotd; 0 means none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ports {
    /// DNS over TLS.
    pub dot: [u16; DOT_PORTS_MAX],
    /// DNS in cleartext.
    pub do53: u16,
}

impl Ports {
    /// The two words in the loaded programs: ports of DNS over TLS, 16 bits each, the first one lowest; the port of
    /// cleartext DNS.
    #[must_use]
    #[inline(always)]
    pub const fn pack(self) -> (u64, u32) {
        let [a, b, c, d] = self.dot;
        (a as u64 | (b as u64) << 16 | (c as u64) << 32 | (d as u64) << 48, self.do53 as u32)
    }

    /// The ports of [`Ports::pack`].
    #[must_use]
    #[inline(always)]
    pub const fn unpack(dot: u64, do53: u32) -> Self {
        Self {
            dot: [dot as u16, (dot >> 16) as u16, (dot >> 32) as u16, (dot >> 48) as u16],
            do53: do53 as u16,
        }
    }
}

impl Services for Ports {
    #[inline(always)]
    fn service(&self, port: u16) -> Option<Service> {
        let [a, b, c, d] = self.dot;
        if port == 0 {
            None
        } else if port == a || port == b || port == c || port == d {
            Some(Service::Dot)
        } else if port == self.do53 {
            Some(Service::Do53)
        } else {
            None
        }
    }
}

/// What a gate does with a packet that it refuses.
#[repr(u8)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Gate {
    /// The gate is off. A map of zeros means this.
    #[default]
    Pass = 0,
    /// Lets it pass, and counts it as one that would have been dropped.
    Count = 1,
    /// Drops it.
    Drop = 2,
    /// Turns it into a reset of its connection.
    Reset = 3,
}

impl Gate {
    /// The gate that an octet of the map means; an unknown one lets packets pass.
    #[must_use]
    #[inline(always)]
    pub const fn from_octet(octet: u8) -> Self {
        match octet {
            1 => Self::Count,
            2 => Self::Drop,
            3 => Self::Reset,
            _ => Self::Pass,
        }
    }
}

/// What a limit does with a packet over its rate.
#[repr(u8)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Over {
    /// Lets it pass, and counts it as one that would have been refused. A map of zeros means this.
    #[default]
    Count = 0,
    /// Drops it.
    Drop = 1,
    /// Answers a query by UDP with TC=1, and drops a packet that cannot be answered.
    Truncate = 2,
}

impl Over {
    /// The meaning of an octet of the map; an unknown one counts.
    #[must_use]
    #[inline(always)]
    pub const fn from_octet(octet: u8) -> Self {
        match octet {
            1 => Self::Drop,
            2 => Self::Truncate,
            _ => Self::Count,
        }
    }
}

/// The one value of the map SETTINGS. 64 octets, no padding.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// [`SCHEMA`]; 0 before the loader has written.
    pub schema: u32,
    /// The [`Gate`] for octets on a DNS-over-TLS port that are not TLS.
    pub cleartext_on_dot: u8,
    /// The [`Gate`] for TLS on the cleartext port.
    pub tls_on_do53: u8,
    /// The [`Gate`] for datagrams to a DNS-over-TLS port.
    pub udp_on_dot: u8,
    /// IP versions with entries on the deny list, by [`version_bit`]: an empty list is not looked up.
    pub deny: u8,
    /// The same for the allow list.
    pub allow: u8,
    /// IP versions with bans.
    pub bans: u8,
    /// IP versions with clients whose handshake budget is spent.
    pub spent: u8,
    /// The effect of limits and bans where no other setting applies: an [`Over`], `Count` or `Drop`.
    pub over: u8,
    /// What happens to a query by UDP above its client's rate: an [`Over`].
    pub do53_query_over: u8,
    /// Bits of an IPv4 address that identify a client.
    pub prefix_v4: u8,
    /// Bits of an IPv6 address that identify a client.
    pub prefix_v6: u8,
    /// Whether lists, bans and limits apply to the cleartext port; 0: only the gate `tls_on_do53` does.
    pub do53_is_limited: u8,
    /// IP versions whose local addresses are known, by [`version_bit`]; for the others every destination counts as
    /// local.
    pub local: u8,
    /// Whether the stack answers with a cookie when a queue is full. Then a SYN above its client's rate passes, unless
    /// the client is known to complete too many connections; 0: the SYN is dropped.
    pub has_cookies: u8,
    /// Bits of an IPv4 address that are one wider prefix; the same number as `prefix_v4` turns the wider limit off.
    pub wide_v4: u8,
    /// The same of an IPv6 address.
    pub wide_v6: u8,
    /// IP versions with wider prefixes that spent what they may, by [`version_bit`]; [`Settings::spent`] has these too.
    pub spent_wide: u8,
    /// Whether an operator traces clients: the map TRACED has them.
    pub traced: u8,
    /// Whether DNS over TLS is switched off: a SYN to its ports is dropped; 0: it is on.
    pub dot_is_off: u8,
    /// Whether the stack takes the ACK of a cookie at all (`net.ipv4.tcp_syncookies`); 0: the SYN proxy answers no SYN.
    pub takes_cookies: u8,
    /// Changes with every change of lists, bans, limits and local addresses, which invalidates what CPUs remember of
    /// clients and destinations; 0: nothing is remembered.
    pub generation: u32,
    /// Number of the loopback interface (lo): packets that come in there meet no limit; 0: there is none.
    pub own_interface: u32,
    /// The rate of one client's SYNs, for each service.
    pub syn: Rate,
    /// The rate of one client's queries by UDP.
    pub do53_query: Rate,
}

/// The bit of an IP version in [`Settings::deny`], [`Settings::allow`], [`Settings::bans`], [`Settings::spent`] and
/// [`Settings::local`].
#[must_use]
#[inline(always)]
pub const fn version_bit(is_v6: bool) -> u8 {
    if is_v6 { 2 } else { 1 }
}

const _: () = assert!(size_of::<Settings>() == 64 && align_of::<Settings>() == 8);

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the two words of a loaded program mean the ports that were packed, and port 0 belongs to no service.
    ///
    #[test]
    fn ports_survive_packing() {
        for ports in [
            Ports::default(),
            Ports { dot: [853, 8853, 1, 65_535], do53: 53 },
            Ports { dot: [853, 0, 0, 0], do53: 0 },
        ] {
            let (dot, do53) = ports.pack();
            assert_eq!(Ports::unpack(dot, do53), ports);
            assert_eq!(ports.service(0), None);
        }
        let ports = Ports { dot: [853, 0, 0, 65_535], do53: 53 };
        assert_eq!(
            [853, 65_535, 53, 54].map(|port| ports.service(port)),
            [Some(Service::Dot), Some(Service::Dot), Some(Service::Do53), None]
        );
    }
}
