//! Gets notifications from the kernel that interfaces, their addresses or routes to this machine have changed.
//!
//! Before: a runtime on the control thread; no right is needed. After: `Xdp::look_after` is called.
//! Holds: a netlink socket for links, addresses and local routes. The content of messages is ignored: interfaces,
//! addresses and attachments are read again, so that neither order nor loss of messages matters. A filter in the kernel
//! passes only routes to this machine, because a router's routes change by the thousand.
//! Never: decides anything.

use std::io;

use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE};

use socket2::{SockFilter, SockRef};

use super::routes::numbers;

/// RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_IFADDR, RTMGRP_IPV6_ROUTE (rtnetlink(7)).
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;

/// The socket.
pub struct Watch(TokioSocket);

impl Watch {
    /// Opens the socket. Call it inside a tokio runtime.
    ///
    /// # Errors
    /// The kernel or the runtime refused it.
    pub fn open() -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        attach_filter(&socket)?;
        // Number 0: the kernel chooses the number of this socket.
        socket.socket_mut().bind(&SocketAddr::new(0, GROUPS))?;
        // Messages beyond the socket's buffer are lost silently: the earlier ones are enough to cause a check.
        socket.socket_mut().set_no_enobufs(true)?;
        Ok(Self(socket))
    }

    /// Waits for one message.
    ///
    /// # Errors
    /// The socket is broken.
    ///
    /// # Cancel safety
    /// Yes: a message that was not read is still there the next time.
    pub async fn changed(&self) -> io::Result<()> {
        let mut scrap = [0; 64];
        self.0.recv(&mut &mut scrap[..]).await
    }
}

/// Makes the kernel filter out messages about routes to other machines.
fn attach_filter(socket: &TokioSocket) -> io::Result<()> {
    const LOAD_OCTET: u16 = 0x30;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    /// The low octet of a message's kind, and the kind of its route.
    const MESSAGE: u32 = if cfg!(target_endian = "little") { 4 } else { 5 };
    const ROUTE: u32 = 16 + 7;
    let step = SockFilter::new;
    let filter = [
        step(LOAD_OCTET, 0, 0, MESSAGE),
        step(JUMP_IF_EQUAL, 1, 0, numbers::RTM_NEWROUTE.into()),
        step(JUMP_IF_EQUAL, 0, 4, numbers::RTM_DELROUTE.into()),
        step(LOAD_OCTET, 0, 0, ROUTE),
        step(JUMP_IF_EQUAL, 2, 0, numbers::RTN_LOCAL.into()),
        step(JUMP_IF_EQUAL, 1, 0, numbers::RTN_BROADCAST.into()),
        step(JUMP_IF_EQUAL, 0, 1, numbers::RTN_ANYCAST.into()),
        step(RETURN, 0, 0, u32::MAX),
        step(RETURN, 0, 0, 0),
    ];
    SockRef::from(socket.socket_ref()).attach_filter(&filter)
}
