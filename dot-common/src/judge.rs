//! Decides about a packet. Step 3 of 9 of a query: all of its arithmetic.
//!
//! Before: [`crate::packet::parse`] has read the packet. After: dot-ebpf counts the verdict and acts.
//! Holds: the order of the checks: deny, ban, allow, limits, gates. Knows only its arguments.
//! Never: writes except by [`Knowledge::admits`]; drops octets of a connection that it does not know, because TLS
//! itself is the security boundary and a gate only sheds load.

pub use crate::knowledge::Knowledge;
use crate::{
    client_lists::{exemption, is_enforced},
    flow::{self, Flow, Sequence},
    frame::Payload,
    packet::{Interest, Malformed, PROTOCOL_TCP, Packet, Segment, Service, Transport, flags, parse_into},
    proof::Trust,
    rate::{self, Class},
    settings::{Gate, Over, Services, Settings, version_bit},
    truncation::Truncation,
    verdict::{Action, Reason, Verdict},
};

/// A verdict, and what is needed to act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judgment {
    /// The action and its reason.
    pub verdict: Verdict,
    /// How to answer; present when the action is [`Action::Answer`].
    pub truncation: Option<Truncation>,
}

impl From<Verdict> for Judgment {
    #[inline(always)]
    fn from(verdict: Verdict) -> Self {
        Self { verdict, truncation: None }
    }
}

/// From frame to verdict; `None`: not a packet of ours.
#[inline(always)]
pub fn judge_frame(
    frame: &impl Payload,
    ports: &impl Services,
    settings: &Settings,
    known: &impl Knowledge,
) -> Option<Verdict> {
    let mut packet = Packet::default();
    match parse_into(frame, ports, || Some(&mut packet), |packet| interest(settings, packet, known)) {
        Ok(None) => None,
        Ok(Some(packet)) => Some(judge(frame, packet, settings, known).verdict),
        Err(malformed) => Some(malformed.into()),
    }
}

/// How closely a packet is looked at. Where this machine's addresses are not known, every address counts as its own.
#[inline(always)]
pub fn interest(settings: &Settings, packet: &Packet, known: &impl Knowledge) -> Interest {
    let (flow, located) = (&packet.flow, &packet.located);
    let is_beside = located.is_do53() && settings.do53_is_limited == 0;
    if is_beside {
        // The config asks for no limit on this port; only the gate looks, at whole segments.
        let is_whole = located.protocol() == PROTOCOL_TCP && !located.is_first_fragment();
        if !is_whole || matches!(Gate::from_octet(settings.tls_on_do53), Gate::Pass) {
            return Interest::Nobodys;
        }
    }
    match settings.local & version_bit(flow.is_v6()) == 0 || known.is_local(flow) {
        false => Interest::Nobodys,
        true if is_beside => Interest::Lawful,
        true => Interest::Whole,
    }
}

/// From packet to verdict.
#[inline(always)]
pub fn judge(frame: &impl Payload, packet: &Packet, settings: &Settings, known: &impl Knowledge) -> Judgment {
    if matches!(packet.service, Service::Do53) && settings.do53_is_limited == 0 {
        // On this port only the gate looks.
        return beside(frame, packet, settings, known).into();
    }
    if (settings.deny | settings.bans) & version_bit(packet.flow.is_v6()) != 0
        && let Some(reason) = known.bars(settings, &packet.flow, packet.begins())
    {
        return Verdict::drop(reason).into();
    }
    let Judgment { verdict, truncation } = judge_packet(frame, packet, settings, known);
    let judgment = Judgment { verdict: known.settle(packet, verdict), truncation };
    // Checked last, so that a ban that only counts opens no gate and hides no other limit.
    if settings.bans & version_bit(packet.flow.is_v6()) != 0
        && !is_enforced(settings)
        && matches!(judgment.verdict.action, Action::Pass)
        && packet.begins()
        && known.would_ban(settings, &packet.flow)
    {
        return Verdict { action: Action::WouldDrop, reason: Reason::Banned }.into();
    }
    judgment
}

/// A packet of a client that no list or ban refuses.
#[inline(always)]
fn judge_packet(
    frame: &impl Payload,
    packet: &Packet,
    settings: &Settings,
    known: &impl Knowledge,
) -> Judgment {
    match (&packet.transport, packet.service) {
        (Transport::TcpFragment, _) => Verdict::drop(Reason::TcpFragment).into(),
        (Transport::Udp, Service::Do53) => judge_datagram(frame, packet, settings, known),
        (Transport::Udp, Service::Dot) => gated(settings.udp_on_dot, Reason::UdpOnDot).into(),
        (Transport::Tcp(segment), _) => judge_segment::<true>(frame, segment, packet, settings, known).into(),
    }
}

/// A packet to the cleartext port of another server, for which no limit was asked: only the gate looks.
#[inline(always)]
fn beside(frame: &impl Payload, packet: &Packet, settings: &Settings, known: &impl Knowledge) -> Verdict {
    let Transport::Tcp(segment) = &packet.transport else { return Verdict::pass(Reason::Do53Datagram) };
    judge_segment::<false>(frame, segment, packet, settings, known)
}

/// A datagram to the cleartext port: a client's datagrams are limited whether or not they claim to be responses; a
/// response (QR=1) is never answered.
#[inline(always)]
fn judge_datagram(
    frame: &impl Payload,
    packet: &Packet,
    settings: &Settings,
    known: &impl Knowledge,
) -> Judgment {
    let within = Verdict::pass(Reason::Do53Datagram).into();
    if !settings.do53_query.is_limit() {
        return within;
    }
    if let Some(reason) = exemption(settings, &packet.flow, known) {
        return Verdict::pass(reason).into();
    }
    let client = rate::client(&packet.flow, settings.prefix_v4, settings.prefix_v6);
    if known.admits(rate::key(Class::Do53Query, client), &settings.do53_query) {
        return within;
    }
    let reason = Reason::Do53QueryRate;
    let drop = Verdict::drop(reason);
    match Over::from_octet(settings.do53_query_over) {
        Over::Count => Verdict { action: Action::WouldDrop, reason }.into(),
        Over::Drop => drop.into(),
        Over::Truncate => match known.plan(frame, &packet.located) {
            None => drop.into(),
            truncation => Judgment { verdict: Verdict { action: Action::Answer, reason }, truncation },
        },
    }
}

/// A segment: a limit applies to SYNs, a gate to octets, and a SYN may hold octets (TCP Fast Open).
#[inline(always)]
fn judge_segment<const IS_LIMITED: bool>(
    frame: &impl Payload,
    segment: &Segment,
    packet: &Packet,
    settings: &Settings,
    known: &impl Knowledge,
) -> Verdict {
    let gate = match packet.service {
        Service::Dot => settings.cleartext_on_dot,
        Service::Do53 => settings.tls_on_do53,
    };
    // The octets of a reset are text for humans (RFC 9293 §3.10.7): they are part of no stream.
    let has_octets = segment.payload_octets != 0 && !segment.has(flags::RST);
    if segment.is_syn() {
        // No closure: LLVM made a function of one, which cost each SYN 10 ns.
        let syn = if IS_LIMITED { judge_syn(packet, settings, known) } else { Verdict::pass(Reason::Syn) };
        if matches!(syn.action, Action::Drop) || !has_octets {
            return syn;
        }
        // Octets in the SYN itself are the first of the stream, whether or not the flow is known.
        let octets = hold_to_gate(frame, segment, 0, packet.service, gate, || true);
        // A limit that only counts, or that does not apply, must not open a gate.
        let is_remarkable = !matches!(syn.reason, Reason::Syn) && matches!(octets.action, Action::Pass);
        return if is_remarkable { syn } else { octets };
    }
    if !has_octets {
        return Verdict::pass(Reason::Control);
    }
    if matches!(Gate::from_octet(gate), Gate::Pass) {
        return Verdict::pass(Reason::Ungated);
    }
    let Some(flow) = known.flow(&packet.flow) else { return Verdict::pass(Reason::UnknownFlow) };
    let place = place_in_stream(segment, &flow);
    hold_to_gate(frame, segment, place, packet.service, gate, || flow.is_enforced(known.now_ns()))
}

/// A SYN alone: a connection begins. The allow list is looked up where a limit would apply.
#[inline(always)]
fn judge_syn(packet: &Packet, settings: &Settings, known: &impl Knowledge) -> Verdict {
    let is_dot = matches!(packet.service, Service::Dot);
    if is_dot && settings.dot_is_off != 0 {
        return Verdict::drop(Reason::DotOff);
    }
    // Before the rate: a SYN that is dropped to protect the engine is not charged to its client.
    if is_dot && known.is_pressed() && exemption(settings, &packet.flow, known).is_none() {
        return limited(settings, Reason::Pressure);
    }
    let may_be_spent = is_dot && settings.spent & version_bit(packet.flow.is_v6()) != 0;
    if !settings.syn.is_limit() && !may_be_spent {
        return Verdict::pass(Reason::Syn);
    }
    if let Some(reason) = exemption(settings, &packet.flow, known) {
        return Verdict::pass(reason);
    }
    let client = rate::client(&packet.flow, settings.prefix_v4, settings.prefix_v6);
    let (class, reason) = match packet.service {
        Service::Dot => (Class::DotSyn, Reason::DotSynRate),
        Service::Do53 => (Class::Do53Syn, Reason::Do53SynRate),
    };
    let mut passes = Reason::Syn;
    if settings.syn.is_limit() && !known.admits(rate::key(class, client), &settings.syn) {
        // A SYN can be forged, a completed connection cannot: a client is charged for the latter (by the loader's
        // budget).
        passes = match known.trust(settings, &packet.flow) {
            Trust::Proven if is_dot => Reason::Proven,
            Trust::Unknown if is_dot && settings.has_cookies != 0 => Reason::Unproven,
            _ => return limited(settings, reason),
        };
    }
    if may_be_spent && let Some(reason) = known.spent_by(settings, &packet.flow) {
        return limited(settings, reason);
    }
    Verdict::pass(passes)
}

/// The ACK of a SYN proxy's cookie, which begins a connection: a SYN that was refused in its place would be refused here.
///
/// As long as the cookie lives, its client needs no SYN to begin the connection again. So the client's rate counts it, in a
/// class of its own because XDP has counted the SYN of a first one. The ACK proves the address, so no proof excuses more.
#[inline(always)]
pub fn judge_completion(packet: &Packet, settings: &Settings, known: &impl Knowledge) -> Verdict {
    let (flow, version) = (&packet.flow, version_bit(packet.flow.is_v6()));
    if (settings.deny | settings.bans) & version != 0
        && let Some(reason) = known.bars(settings, flow, true)
    {
        return Verdict::drop(reason);
    }
    if settings.dot_is_off != 0 {
        return Verdict::drop(Reason::DotOff);
    }
    if let Some(reason) = exemption(settings, flow, known) {
        return Verdict::pass(reason);
    }
    if known.is_pressed() {
        return limited(settings, Reason::Pressure);
    }
    if settings.spent & version != 0
        && let Some(reason) = known.spent_by(settings, flow)
    {
        return limited(settings, reason);
    }
    let client = rate::client(flow, settings.prefix_v4, settings.prefix_v6);
    if settings.syn.is_limit() && !known.admits(rate::key(Class::DotCompletion, client), &settings.syn) {
        return limited(settings, Reason::DotSynRate);
    }
    Verdict::pass(Reason::Syn)
}

/// What a limit does with a packet above it.
#[inline(always)]
fn limited(settings: &Settings, reason: Reason) -> Verdict {
    Verdict { action: if is_enforced(settings) { Action::Drop } else { Action::WouldDrop }, reason }
}

/// Compares the octets of a segment at `place` with the opening of a stream.
#[inline(always)]
fn hold_to_gate(
    frame: &impl Payload,
    segment: &Segment,
    place: Sequence,
    service: Service,
    gate: u8,
    is_enforced: impl FnOnce() -> bool,
) -> Verdict {
    if matches!(Gate::from_octet(gate), Gate::Pass) {
        return Verdict::pass(Reason::Ungated);
    }
    let Some(opening) = flow::opening(place, segment.payload_octets) else {
        return Verdict::pass(Reason::Stream);
    };
    // The clock costs more than all of the above, so it is read last, and not for established connections.
    if !is_enforced() {
        return Verdict::pass(Reason::FlowExpired);
    }
    let Some(octets) = frame.load(segment.payload_offset + opening.skip, opening.count) else {
        return Malformed::IpLength.into();
    };
    let fits = flow::fits_client_hello(octets, &opening);
    match service {
        Service::Dot if fits => Verdict::pass(Reason::ClientHello),
        Service::Dot => gated(gate, Reason::CleartextOnDot),
        // A DNS message may begin 16 03: 5,635 octets. With all six octets it would be a query with RCODE 1, which no
        // client sends. Fewer than six in a segment prove nothing, and pass.
        Service::Do53 if fits && opening.count == flow::TEMPLATE_OCTETS => gated(gate, Reason::TlsOnDo53),
        Service::Do53 => Verdict::pass(Reason::Do53Stream),
    }
}

/// The place of a segment's first octet in its stream, wrapping.
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
mod tests;
