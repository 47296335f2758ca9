//! Hears from the kernel that interfaces or their addresses have changed.
//!
//! Before: a runtime on the control thread; no right is needed. After: `Xdp::look_after` is called.
//! Holds: a netlink socket that is told of links and addresses. What it is told is thrown away: which
//! interfaces there are, and what is attached to them, is asked anew, so that no order or loss of messages matters.
//! Never: decides anything.

use std::io;

use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE};

/// RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR (rtnetlink(7)).
const GROUPS: u32 = 0x1 | 0x10 | 0x100;

/// The socket.
pub struct Watch(TokioSocket);

impl Watch {
    /// Opens it. Call it inside a tokio runtime.
    ///
    /// # Errors
    /// The kernel or the runtime refused it.
    pub fn open() -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        // Number 0: the kernel chooses ours.
        socket.socket_mut().bind(&SocketAddr::new(0, GROUPS))?;
        // Messages beyond what the socket holds are lost silently: those before them are news enough.
        socket.socket_mut().set_no_enobufs(true)?;
        Ok(Self(socket))
    }

    /// Waits for one message.
    ///
    /// # Errors
    /// The socket is broken.
    ///
    /// # Cancel safety
    /// Yes: what was not taken is there the next time.
    pub async fn changed(&self) -> io::Result<()> {
        let mut scrap = [0; 64];
        self.0.recv(&mut &mut scrap[..]).await
    }
}
