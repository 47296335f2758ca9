//! Decides about a packet. Step 3 of 9 of a query, and its whole arithmetic.
//!
//! Before: [`crate::packet::parse`] gave us the packet. After: dot-ebpf counts the verdict and acts.
//! Holds: the order of questions. Knows of the world only what its arguments say.
//! Never: writes; and never drops octets of a connection it does not know: TLS itself is the security
//! boundary, a gate sheds load.

use crate::{
    flow::{self, Flow, FlowKey},
    frame::Payload,
    packet::{Malformed, Packet, Segment, Service, Transport, flags, parse},
    settings::{Gate, Settings, version_bit},
    verdict::{Action, Reason, Verdict},
};

/// What the judge may ask for, and mostly does not need.
pub trait Knowledge {
    /// What the learner wrote about a connection.
    fn flow(&self, key: &FlowKey) -> Option<Flow>;

    /// Monotonic time in nanoseconds.
    fn now_ns(&self) -> u64;

    /// Whether the deny list of its IP version holds a client.
    fn is_denied(&self, flow: &FlowKey) -> bool;
}

/// From frame to verdict; `None`: not a packet of ours.
#[inline(always)]
pub fn judge_frame(frame: &impl Payload, settings: &Settings, known: &impl Knowledge) -> Option<Verdict> {
    match parse(frame, &settings.ports) {
        Ok(None) => None,
        Ok(Some(packet)) => Some(judge(frame, &packet, settings, known)),
        Err(malformed) => Some(malformed.into()),
    }
}

/// From packet to verdict.
#[inline(always)]
pub fn judge(frame: &impl Payload, packet: &Packet, settings: &Settings, known: &impl Knowledge) -> Verdict {
    if settings.deny & version_bit(packet.flow.is_v6()) != 0 && known.is_denied(&packet.flow) {
        return Verdict::drop(Reason::Denied);
    }
    match (&packet.transport, packet.service) {
        (Transport::TcpFragment, _) => Verdict::drop(Reason::TcpFragment),
        (Transport::Udp, Service::Do53) => Verdict::pass(Reason::Do53Datagram),
        (Transport::Udp, Service::Dot) => gated(settings.udp_on_dot, Reason::UdpOnDot),
        (Transport::Tcp(segment), service) => {
            let gate = match service {
                Service::Dot => settings.cleartext_on_dot,
                Service::Do53 => settings.tls_on_do53,
            };
            judge_segment(frame, segment, packet, gate, known)
        }
    }
}

#[inline(always)]
fn judge_segment(
    frame: &impl Payload,
    segment: &Segment,
    packet: &Packet,
    gate: u8,
    known: &impl Knowledge,
) -> Verdict {
    // The octets of a reset are words for people (RFC 9293 §3.10.7): no stream ever holds them.
    if segment.payload_octets == 0 || segment.has(flags::RST) {
        let is_syn = segment.has(flags::SYN) && !segment.has(flags::RST | flags::ACK);
        return Verdict::pass(if is_syn { Reason::Syn } else { Reason::Control });
    }
    if matches!(Gate::from_octet(gate), Gate::Pass) {
        return Verdict::pass(Reason::Ungated);
    }
    // TCP Fast Open: octets in the SYN itself are the stream's first, whatever we know.
    let is_fast_open = segment.has(flags::SYN) && !segment.has(flags::ACK);
    let flow = if is_fast_open { None } else { known.flow(&packet.flow) };
    let place = match &flow {
        None if is_fast_open => 0,
        None => return Verdict::pass(Reason::UnknownFlow),
        Some(flow) => place_in_stream(segment, flow),
    };
    let Some(opening) = flow::opening(place, segment.payload_octets) else {
        return Verdict::pass(Reason::Stream);
    };
    // The clock costs more than all of the above: asked last, and not for established connections.
    if flow.is_some_and(|flow| !flow.is_enforced(known.now_ns())) {
        return Verdict::pass(Reason::FlowExpired);
    }
    let Some(octets) = frame.load(segment.payload_offset + opening.skip, opening.count) else {
        return Malformed::IpLength.into();
    };
    let fits = flow::fits_client_hello(octets, &opening);
    match packet.service {
        Service::Dot if fits => Verdict::pass(Reason::ClientHello),
        Service::Dot => gated(gate, Reason::CleartextOnDot),
        // A DNS message may begin 16 03: 5,635 octets. With all six it would be a query that says
        // RCODE 1, which none does. Fewer than six in a segment prove nothing, and pass.
        Service::Do53 if fits && opening.count == flow::TEMPLATE_OCTETS => gated(gate, Reason::TlsOnDo53),
        Service::Do53 => Verdict::pass(Reason::Do53Stream),
    }
}

/// The place in its stream of a segment's first octet, wrapping.
#[inline(always)]
fn place_in_stream(segment: &Segment, flow: &Flow) -> u32 {
    // A SYN takes one sequence number: the stream begins one after it.
    let syn = if segment.has(flags::SYN) { 1 } else { 0 };
    segment.sequence.wrapping_add(syn).wrapping_sub(flow.initial.wrapping_add(1))
}

#[inline(always)]
fn gated(gate: u8, reason: Reason) -> Verdict {
    match Gate::from_octet(gate) {
        Gate::Pass => Verdict::pass(Reason::Ungated),
        Gate::Count => Verdict { action: Action::WouldDrop, reason },
        Gate::Drop | Gate::Reset => Verdict::drop(reason),
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::settings::{Ports, SCHEMA};

    struct Always(Option<Flow>);

    impl Knowledge for Always {
        fn flow(&self, _: &FlowKey) -> Option<Flow> {
            self.0
        }

        fn now_ns(&self) -> u64 {
            0
        }

        fn is_denied(&self, flow: &FlowKey) -> bool {
            flow.client[0] & 1 == 1
        }
    }

    fn settings(gate: Gate) -> Settings {
        let ports = Ports { dot: [853, 0, 0, 0], do53: 53 };
        let gate = gate as u8;
        let zeroed = Settings::default();
        Settings {
            schema: SCHEMA,
            ports,
            cleartext_on_dot: gate,
            tls_on_do53: gate,
            udp_on_dot: gate,
            ..zeroed
        }
    }

    /// Octets that often lead somewhere: an Ethernet and an IP header's first octets, then noise.
    fn plausible() -> impl Strategy<Value = Vec<u8>> {
        let noise = prop::collection::vec(
            prop_oneof![3 => any::<u8>(), 1 => Just(0u8), 1 => Just(6u8), 1 => Just(0x50u8)],
            0..200,
        );
        let start = prop_oneof![
            Just([8u8, 0, 0x45].to_vec()),
            Just([8u8, 0, 0x4f].to_vec()),
            Just([0x86u8, 0xdd, 0x60].to_vec()),
            Just([0x81u8, 0, 0, 1, 0x86, 0xdd, 0x60].to_vec()),
            Just([].to_vec()),
        ];
        (start, noise).prop_map(|(start, noise)| [[2; 12].to_vec(), start, noise].concat())
    }

    /// Goal: before the loader wrote settings, nothing is ours.
    #[test]
    fn unset_settings_pass_everything() {
        let mut frame = [0u8; 54];
        (frame[12], frame[14], frame[17], frame[23], frame[46]) = (8, 0x45, 40, 6, 0x50);
        let known = Always(None);
        // Destination port 0, which unset settings hold five times.
        assert_eq!(judge_frame(&frame.as_slice(), &Settings::default(), &known), None);
        assert_eq!(judge_frame(&frame.as_slice(), &settings(Gate::Drop), &known), None);
        (frame[36], frame[37]) = (3, 0x55);
        let verdict = judge_frame(&frame.as_slice(), &settings(Gate::Drop), &known);
        assert_eq!(verdict, Some(Verdict::pass(Reason::Control)));
    }

    proptest! {
        /// Goal: no octets whatever make the judge panic, and every verdict is one that can be counted.
        #[test]
        fn any_octets_get_a_lawful_verdict(octets in plausible(), initial: u32, gate in 0u8..5, deny in 0u8..4) {
            let flow = Flow { learned_ns: 0, initial, offences: 0 };
            let settings = Settings { deny, ..settings(Gate::from_octet(gate)) };
            for known in [Always(None), Always(Some(flow))] {
                if let Some(verdict) = judge_frame(&octets.as_slice(), &settings, &known) {
                    prop_assert!(verdict.reason.actions().contains(&verdict.action), "{verdict:?}");
                }
            }
        }
    }
}
