//! How long a datagram to a backend may be: dotd's datagrams are never fragmented.
//!
//! Before: `socket` made a socket. After: the kernel refuses a datagram that is longer than the path's MTU, as
//! far as it knows that, and dotd asks such a query over a connection.
//! Never: assumes a smaller path MTU than the kernel does.
//!
//! Source: RFC 9715 §3.1 and appendix A (no fragments, and TCP in their place).

use std::{io, net::SocketAddr, os::fd::AsFd};

use nix::{
    getsockopt_impl, setsockopt_impl, sockopt_impl,
    sys::socket::{getsockopt, setsockopt},
};

sockopt_impl!(
    /// What IPv4 does with a datagram that is too long (path MTU discovery).
    Discover4,
    Both,
    libc::IPPROTO_IP,
    libc::IP_MTU_DISCOVER,
    i32
);
sockopt_impl!(
    /// What IPv6 does with a datagram that is too long (path MTU discovery).
    Discover6,
    Both,
    libc::IPPROTO_IPV6,
    libc::IPV6_MTU_DISCOVER,
    i32
);
sockopt_impl!(
    /// The MTU of the path of a connected IPv4 socket.
    Mtu4,
    GetOnly,
    libc::IPPROTO_IP,
    libc::IP_MTU,
    i32
);
sockopt_impl!(
    /// The MTU of the path of a connected IPv6 socket.
    Mtu6,
    GetOnly,
    libc::IPPROTO_IPV6,
    libc::IPV6_MTU,
    i32
);

/// Headers in front of a datagram's octets: IPv4 and UDP, IPv6 and UDP.
const HEADERS_OCTETS: [usize; 2] = [20 + 8, 40 + 8];

/// Octets of a datagram that every path carries: IPv6's smallest MTU (RFC 8200 §5) without headers. A longer one
/// may be lost each time, if no router says why.
pub const CARRIED_OCTETS: usize = 1280 - HEADERS_OCTETS[1];

/// Makes the kernel refuse, with EMSGSIZE, a datagram to `backend` that does not fit into one packet.
///
/// # Errors
/// Whatever `setsockopt` says.
pub fn forbid_fragments(socket: &impl AsFd, backend: SocketAddr) -> io::Result<()> {
    match backend {
        SocketAddr::V4(_) => setsockopt(socket, Discover4, &libc::IP_PMTUDISC_DO)?,
        SocketAddr::V6(_) => setsockopt(socket, Discover6, &libc::IPV6_PMTUDISC_DO)?,
    }
    Ok(())
}

/// Octets of the longest datagram to `backend`, as far as the kernel knows the path.
pub fn datagram_octets_max(socket: &impl AsFd, backend: SocketAddr) -> Option<usize> {
    let mtu = match backend {
        SocketAddr::V4(_) => getsockopt(socket, Mtu4),
        SocketAddr::V6(_) => getsockopt(socket, Mtu6),
    };
    usize::try_from(mtu.ok()?).ok()?.checked_sub(HEADERS_OCTETS[usize::from(backend.is_ipv6())])
}

/// Whether an error says that a datagram is too long: this one or, reported by ICMP, an earlier one.
pub fn says_too_long(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EMSGSIZE)
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    /// Goal: neither family sends fragments, and each knows how much fits. Method: sockets on loopback, the option read
    /// back; one octet more than fits is refused.
    #[test]
    fn neither_family_sends_fragments() {
        for host in ["127.0.0.1:0", "[::1]:0"] {
            let (near, far) = (UdpSocket::bind(host).unwrap(), UdpSocket::bind(host).unwrap());
            let backend = far.local_addr().unwrap();
            near.connect(backend).unwrap();
            forbid_fragments(&near, backend).unwrap();
            let set =
                if backend.is_ipv4() { getsockopt(&near, Discover4) } else { getsockopt(&near, Discover6) };
            assert_eq!(set.unwrap(), libc::IP_PMTUDISC_DO);
            assert!(datagram_octets_max(&near, backend).unwrap() > 1400, "{host}");
            let refused = near.send(&[0; 65_530]).expect_err("longer than any datagram");
            assert!(says_too_long(&refused), "{refused}");
        }
    }
}
