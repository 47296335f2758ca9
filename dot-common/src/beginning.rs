//! Which packets begin something: a connection, or a query of which nothing came before.
//!
//! Before: [`crate::packet`] read the packet. After: [`crate::client_lists`] knows whether a ban of the engine refuses it.
//! Never: looks at a port or a payload.

use crate::packet::{Packet, Segment, Transport, flags};

impl Segment {
    /// Whether it asks for a connection.
    #[must_use]
    #[inline(always)]
    pub const fn is_syn(&self) -> bool {
        self.flags & (flags::SYN | flags::RST | flags::ACK) == flags::SYN
    }
}

impl Packet {
    /// Whether it begins something. Segments of a connection do not.
    #[must_use]
    #[inline(always)]
    pub const fn begins(&self) -> bool {
        match &self.transport {
            Transport::Udp => true,
            Transport::Tcp(segment) => segment.is_syn(),
            Transport::TcpFragment => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a SYN and a datagram begin something; a SYN-ACK, a reset, other segments and fragments do not.
    #[test]
    fn a_syn_and_a_datagram_begin() {
        let tcp = |flags| {
            let segment = Segment { sequence: 1, flags, payload_offset: 54, payload_octets: 0 };
            Packet { transport: Transport::Tcp(segment), ..Packet::default() }.begins()
        };
        assert!(tcp(flags::SYN) && tcp(flags::SYN | flags::FIN));
        for others in [0, flags::ACK, flags::SYN | flags::ACK, flags::SYN | flags::RST, flags::FIN] {
            assert!(!tcp(others), "{others}");
        }
        assert!(Packet { transport: Transport::Udp, ..Packet::default() }.begins());
        assert!(!Packet { transport: Transport::TcpFragment, ..Packet::default() }.begins());
    }
}
