//! Learns where each connection's stream begins, from our own SYN-ACKs.
//!
//! Before: our stack accepted a connection. After: the judge can place any segment of it in its stream.
//! Holds: nothing but the writing of FLOWS4 and FLOWS6.
//! Never: believes a client: a map fed by SYNs is fooled by two of them.

use aya_ebpf::programs::TcContext;
use dot_common::{flow::Flow, packet::parse_syn_ack};

use crate::{context::Frame, maps};

/// Writes down the flow of a SYN-ACK from one of our ports.
#[inline(always)]
pub(crate) fn learn(context: &TcContext) {
    let Some(settings) = maps::settings() else { return };
    let Some((key, initial)) = parse_syn_ack(&Frame(context), &settings.ports) else { return };
    maps::remember(&key, &Flow { learned_ns: maps::now_ns(), initial, offences: 0 });
}
