//! TCP Fast Open as a client, and whether the server accepted the octets of the SYN.
//!
//! Before: `--tfo`. After: `wire` connects with its first write, and reports the result.
//! Never: changes a setting of the machine. Source: RFC 7413, RFC 7858 §3.4, tcp(7).

use std::{io, os::fd::AsFd};

use nix::{
    getsockopt_impl, sockopt_impl,
    sys::socket::{getsockopt, setsockopt, sockopt::TcpFastOpenConnect},
};

sockopt_impl!(
    /// What the kernel knows of a connection.
    TcpInfo,
    GetOnly,
    libc::IPPROTO_TCP,
    libc::TCP_INFO,
    libc::tcp_info
);

/// TCPI_OPT_SYN_DATA: the peer acknowledged octets of our SYN.
const SYN_DATA: u8 = 32;

/// `connect` waits for the first write, which is sent with the SYN if the kernel has a cookie of this server.
pub(super) fn ask(socket: impl AsFd) -> io::Result<()> {
    Ok(setsockopt(&socket, TcpFastOpenConnect, &true)?)
}

/// Whether the server acknowledged octets of the SYN.
pub(super) fn was_taken(socket: impl AsFd) -> io::Result<bool> {
    Ok(getsockopt(&socket, TcpInfo)?.tcpi_options & SYN_DATA != 0)
}
