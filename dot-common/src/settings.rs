//! What the loader tells the kernel half: which ports are ours, and how strict each gate is.
//!
//! Before: the config file. After: [`crate::packet`] asks for a port's service, [`crate::judge`] for a
//! gate's mode, and whether a list is worth asking. One writer, the loader; the kernel half reads.
//! Never: holds an address: lists are maps of their own, and the kernel routes.

use crate::{packet::Service, rate::Rate};

/// Version of all map shapes and their meaning: a folder of pins is of one schema.
pub const SCHEMA: u32 = 3;

/// Most DNS-over-TLS ports.
pub const DOT_PORTS_MAX: usize = 4;

/// The ports that are ours; 0 means none.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ports {
    /// DNS over TLS.
    pub dot: [u16; DOT_PORTS_MAX],
    /// DNS in cleartext.
    pub do53: u16,
}

impl Ports {
    /// The service of a port.
    #[must_use]
    #[inline(always)]
    pub const fn service(&self, port: u16) -> Option<Service> {
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
    /// Our ports.
    pub ports: Ports,
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
    /// Always zero.
    pub reserved: [u8; 3],
    /// Changes with every change of lists, bans and limits, which makes void what CPUs remember of clients; 0: nothing
    /// is remembered.
    pub generation: u32,
    /// TCP SYN of one client, of each service.
    pub syn: Rate,
    /// Queries by UDP of one client.
    pub do53_query: Rate,
}

/// The bit of an IP version in [`Settings::deny`], [`Settings::allow`], [`Settings::bans`] and [`Settings::spent`].
#[must_use]
#[inline(always)]
pub const fn version_bit(is_v6: bool) -> u8 {
    if is_v6 { 2 } else { 1 }
}

const _: () = assert!(size_of::<Settings>() == 64 && align_of::<Settings>() == 8);
