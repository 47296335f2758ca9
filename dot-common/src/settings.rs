//! What the loader tells the kernel half: which ports are ours, and how strict each gate is.
//!
//! Before: the config file. After: [`crate::packet`] asks for a port's service, [`crate::judge`] for a
//! gate's mode, and whether a list is worth asking. One writer, the loader; the kernel half reads.
//! Holds: two kinds. [`Ports`] are constants of the loaded programs, which nobody can change. [`Settings`] are a map.
//! Never: holds an address: lists are maps of their own, and the kernel routes.

use crate::{packet::Service, rate::Rate};

/// Version of all map shapes and their meaning: a folder of pins is of one schema.
pub const SCHEMA: u32 = 6;

/// Most DNS-over-TLS ports.
pub const DOT_PORTS_MAX: usize = 4;

/// Which service a port has.
pub trait Services {
    /// The service of a port.
    fn service(&self, port: u16) -> Option<Service>;
}

/// The ports that are ours; 0 means none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ports {
    /// DNS over TLS.
    pub dot: [u16; DOT_PORTS_MAX],
    /// DNS in cleartext.
    pub do53: u16,
}

impl Ports {
    /// The two words that the loaded programs hold: ports of DNS over TLS, 16 bits each, the first one lowest; the port of
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

/// What a gate does with a packet it does not want.
#[repr(u8)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Gate {
    /// Does not look. The zeroed map means this.
    #[default]
    Pass = 0,
    /// Lets it pass, and counts what it would have dropped.
    Count = 1,
    /// Drops it.
    Drop = 2,
    /// Turns it into a reset of its connection.
    Reset = 3,
}

impl Gate {
    /// The gate that a byte of the map means; unknown ones pass.
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
    /// Lets it pass, and counts what it would have refused. The zeroed map means this.
    #[default]
    Count = 0,
    /// Drops it.
    Drop = 1,
    /// Answers a query by UDP with TC=1, and drops what cannot be answered.
    Truncate = 2,
}

impl Over {
    /// What a byte of the map means; unknown ones count.
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
    /// [`SCHEMA`]; 0 before the loader wrote.
    pub schema: u32,
    /// Octets on a DNS-over-TLS port that are no TLS: a [`Gate`].
    pub cleartext_on_dot: u8,
    /// TLS on the cleartext port: a [`Gate`].
    pub tls_on_do53: u8,
    /// Datagrams to a DNS-over-TLS port: a [`Gate`].
    pub udp_on_dot: u8,
    /// IP versions with entries on the deny list, by [`version_bit`]: an empty list is not asked.
    pub deny: u8,
    /// The same for the allow list.
    pub allow: u8,
    /// IP versions with bans.
    pub bans: u8,
    /// IP versions with clients whose handshake budget is spent.
    pub spent: u8,
    /// What limits and bans do where nothing else is said: an [`Over`], `Count` or `Drop`.
    pub over: u8,
    /// A query by UDP over its client's rate: an [`Over`].
    pub do53_query_over: u8,
    /// Bits of an IPv4 address that are one client's.
    pub prefix_v4: u8,
    /// Bits of an IPv6 address that are one client's.
    pub prefix_v6: u8,
    /// Whether lists, bans and limits hold on the cleartext port; 0: only the gate of `tls_on_do53` looks there.
    pub do53_is_limited: u8,
    /// IP versions whose local addresses are known, by [`version_bit`]; of others every destination counts as ours.
    pub local: u8,
    /// Whether the stack answers with a cookie what its queue has no room for: then a SYN over its client's rate is let
    /// through, unless the client is known to finish too many connections; 0: it is dropped.
    pub has_cookies: u8,
    /// Always zero.
    pub reserved: [u8; 6],
    /// Changes with every change of lists, bans, limits and local addresses, which makes void what CPUs remember of
    /// clients and destinations; 0: nothing is remembered.
    pub generation: u32,
    /// Number of the interface on which this machine hears itself (lo): what comes there meets no limit; 0: there is none.
    pub own_interface: u32,
    /// TCP SYN of one client, of each service.
    pub syn: Rate,
    /// Queries by UDP of one client.
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

    /// Goal: the two words of a loaded program mean the ports that were packed, and port 0 is nobody's.
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
