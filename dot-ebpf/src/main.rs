//! dotd's kernel half: a frame comes in, a verdict goes out, and it is counted once. Steps 1 to 3 of 9 of a query.
//!
//! [`dotd_xdp`] judges what comes in on an interface, [`dotd_learn`] sees dotd's own SYN-ACKs leave at tc egress,
//! [`dotd_ingress`] judges at tc where XDP cannot be, [`dotd_steer`] gives a new connection to the worker of the
//! packet's CPU. Three programs may follow the judge, each only where the config wants it: [`dotd_notice`],
//! [`dotd_cookie`], [`dotd_spread`].
//! Holds: the entry points, and the consequences of a verdict. The decisions are in dot-common, where tests reach them.
//! Never: answers on the wire, except a query above its rate and a SYN in a flood; writes an address list, logs by
//! default.

#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![allow(missing_docs, unreachable_pub, reason = "aya's macros generate a second, public function each")]

mod cleartext;
mod context;
mod cookie;
mod datagram;
mod ingress;
mod judge;
mod learn;
mod lists;
mod maps;
mod notice;
mod ports;
mod proxy;
mod scratch;
mod socket;
mod spread;
mod steer;
mod subprograms;
mod syn_ack;
mod tail_calls;
mod trace;
mod truncate;

use aya_ebpf::{
    bindings::{TC_ACT_UNSPEC, sk_action, xdp_action},
    macros::{classifier, sk_reuseport, xdp},
    programs::{SkReuseportContext, TcContext, XdpContext},
};

/// Judges a frame, counts the verdict, and passes, drops, resets or answers. Frames may span several buffers.
#[xdp(frags)]
pub fn dotd_xdp(context: XdpContext) -> u32 {
    judge::judge(&context).unwrap_or(xdp_action::XDP_PASS)
}

/// Sends a notice of a refusal for the log, and ends with the action of the judge.
#[xdp(frags)]
pub fn dotd_notice(context: XdpContext) -> u32 {
    notice::note(&context)
}

/// Moves a packet to the CPU of its connection.
#[xdp(frags)]
pub fn dotd_spread(_: XdpContext) -> u32 {
    spread::spread()
}

/// Answers a SYN with a cookie if the kernel wants one for it, and counts the SYN.
#[xdp(frags)]
pub fn dotd_cookie(context: XdpContext) -> u32 {
    cookie::answer(&context)
}

/// Writes down the client's initial sequence number when our stack accepts a connection.
///
/// Never decides: other programs of this hook run after it.
#[classifier]
pub fn dotd_learn(context: TcContext) -> i32 {
    learn::learn(&context, &context::Frame(&context));
    TC_ACT_UNSPEC
}

/// The same on an interface without Ethernet.
#[classifier]
pub fn dotd_learn_ip(context: TcContext) -> i32 {
    learn::learn(&context, &datagram::Datagram(&context));
    TC_ACT_UNSPEC
}

/// Judges packets that come in on an interface where XDP cannot be.
#[classifier]
pub fn dotd_ingress(context: TcContext) -> i32 {
    ingress::judge(&context)
}

/// Answers SYNs of a flood, and completes the connections of those who answer. Loaded from Linux 6.9 on, if the config wants it.
#[classifier]
pub fn dotd_proxy(context: TcContext) -> i32 {
    proxy::proxy(&context)
}

/// Selects the listener of the worker that owns this CPU; without such a worker the kernel's hash selects.
#[sk_reuseport]
pub fn dotd_steer(context: SkReuseportContext) -> u32 {
    steer::select(&context);
    sk_action::SK_PASS
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Several kernel helpers are available only to programs under the GPL.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
