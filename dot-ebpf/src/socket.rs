//! Asks the kernel for the socket that a connection has.
//!
//! Before: a packet's addresses and ports. After: the program has read what it needs from the socket, and the socket is
//! released.
//! Holds: the tuple in the order of the wire, the look-up, the release.
//! Never: keeps a socket: the verifier refuses a program that does.

use core::ptr;

use aya_ebpf::{
    bindings::bpf_sock,
    cty::c_void,
    helpers::{bpf_sk_release, bpf_skc_lookup_tcp},
};
use dot_common::flow::FlowKey;

/// The result of `ask` for the local socket of a connection: its own socket, a request, or a listener. `None`: there is
/// no socket. `context` is that of an XDP or tc program.
#[inline(always)]
pub(crate) fn of<T>(context: *mut c_void, flow: &FlowKey, ask: impl FnOnce(*mut bpf_sock) -> T) -> Option<T> {
    let socket =
        if flow.is_v6() { look_up(context, &tuple_v6(flow)) } else { look_up(context, &tuple_v4(flow)) };
    if socket.is_null() {
        return None;
    }
    let said = ask(socket);
    // SAFETY: the socket of the look-up, released once.
    unsafe { bpf_sk_release(socket.cast()) };
    Some(said)
}

#[inline(always)]
fn look_up<const WORDS: usize>(context: *mut c_void, tuple: &[u32; WORDS]) -> *mut bpf_sock {
    /// BPF_F_CURRENT_NETNS: the namespace of the interface.
    const THIS_NAMESPACE: u64 = u32::MAX as u64;
    let octets = WORDS as u32 * 4;
    // SAFETY: the tuple has the stated length; the context is the one the kernel gave the program.
    unsafe {
        bpf_skc_lookup_tcp(context, ptr::from_ref(tuple).cast_mut().cast(), octets, THIS_NAMESPACE, 0).cast()
    }
}

/// Addresses and ports as the helper wants them: in the order of the wire.
#[inline(always)]
fn tuple_v4(flow: &FlowKey) -> [u32; 3] {
    let [client, server, ports] = flow.v4();
    [client, server, ports.to_be()]
}

#[inline(always)]
fn tuple_v6(flow: &FlowKey) -> [u32; 9] {
    let [a, b, c, d, e, f, g, h, ports] = flow.v6();
    [a, b, c, d, e, f, g, h, ports.to_be()]
}
