//! Verdicts for plausible and random frames, in every mode of the gates.
//!
//! Before: `judge` compiles. After: it panics for no frame, and gives each frame one verdict. Never: needs a kernel.

extern crate std;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::{
    ban::Ban,
    flow::FlowKey,
    network::Network,
    proof::Proof,
    rate::Rate,
    settings::{Ports, SCHEMA},
    spent::Spent,
};

const PORTS: Ports = Ports { dot: [853, 0, 0, 0], do53: 53 };

struct Always(Option<Flow>);

impl Knowledge for Always {
    fn flow(&self, _: &FlowKey) -> Option<Flow> {
        self.0
    }

    fn now_ns(&self) -> u64 {
        0
    }

    fn is_local(&self, flow: &FlowKey) -> bool {
        flow.server_words()[0] & 1 == 0
    }

    fn is_own(&self, own_interface: u32) -> bool {
        own_interface == 1
    }

    fn is_denied(&self, flow: &FlowKey) -> bool {
        flow.client_words()[0] & 1 == 1
    }

    fn is_allowed(&self, flow: &FlowKey) -> bool {
        flow.client_words()[0] & 2 == 2
    }

    fn is_banned(&self, network: &Network, holds: impl FnOnce(&Ban) -> bool) -> bool {
        let cause = (network.aligned >> 32 & 1) as u32;
        network.aligned >> 32 & 8 == 8 && holds(&Ban { until_ns: 1, cause, ..Ban::default() })
    }

    fn spent(&self, network: &Network) -> Spent {
        Spent { until_ns: network.aligned >> 32 & 1, all_until_ns: network.aligned >> 33 & 1 }
    }

    fn proof(&self, network: &Network) -> Proof {
        let word = network.aligned >> 32;
        if word & 2 == 2 { Proof::proven(1) } else { Proof::excessive(word >> 2 & 1) }
    }

    fn is_pressed(&self) -> bool {
        self.0.is_some_and(|flow| flow.initial & 1 == 1)
    }

    fn admits(&self, key: u64, _: &Rate) -> bool {
        key & 4 == 4
    }
}

fn settings(gate: Gate) -> Settings {
    let (gate, zeroed) = (gate as u8, Settings::default());
    Settings { schema: SCHEMA, cleartext_on_dot: gate, tls_on_do53: gate, udp_on_dot: gate, ..zeroed }
}

/// Octets that often get past the first checks: the first octets of an Ethernet and an IP header, then noise.
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

/// Goal: before the loader has written settings, no packet is for dotd.
#[test]
fn unset_settings_pass_everything() {
    let mut frame = [0u8; 54];
    (frame[12], frame[14], frame[17], frame[23], frame[46]) = (8, 0x45, 40, 6, 0x50);
    let known = Always(None);
    // Destination port 0, which unset settings contain five times.
    assert_eq!(judge_frame(&frame.as_slice(), &Ports::default(), &settings(Gate::Drop), &known), None);
    assert_eq!(judge_frame(&frame.as_slice(), &PORTS, &settings(Gate::Drop), &known), None);
    (frame[36], frame[37]) = (3, 0x55);
    let verdict = judge_frame(&frame.as_slice(), &PORTS, &settings(Gate::Drop), &known);
    assert_eq!(verdict, Some(Verdict::pass(Reason::Control)));
}

/// Knowledge of one fact about a client.
#[derive(Clone, Copy, Default)]
struct Client {
    is_denied: bool,
    is_allowed: bool,
    is_own: bool,
    banned: Option<Ban>,
    spent: Spent,
    is_pressed: bool,
    is_over: bool,
}

impl Knowledge for Client {
    fn flow(&self, _: &FlowKey) -> Option<Flow> {
        None
    }

    fn now_ns(&self) -> u64 {
        1
    }

    fn is_local(&self, _: &FlowKey) -> bool {
        true
    }

    fn is_own(&self, _: u32) -> bool {
        self.is_own
    }

    fn is_denied(&self, _: &FlowKey) -> bool {
        self.is_denied
    }

    fn is_allowed(&self, _: &FlowKey) -> bool {
        self.is_allowed
    }

    fn is_banned(&self, _: &Network, holds: impl FnOnce(&Ban) -> bool) -> bool {
        self.banned.is_some_and(|ban| holds(&ban))
    }

    fn spent(&self, _: &Network) -> Spent {
        self.spent
    }

    fn proof(&self, _: &Network) -> Proof {
        Proof::proven(u64::MAX)
    }

    fn is_pressed(&self) -> bool {
        self.is_pressed
    }

    fn admits(&self, key: u64, _: &Rate) -> bool {
        assert_eq!(key >> 60, Class::DotCompletion as u64, "the SYN's own class was charged when it came");
        !self.is_over
    }
}

/// Goal: the ACK of a proxy's cookie is refused for each reason that refuses a SYN, its rate excused by no proof, and passes where a SYN
/// passes. Method: clients, each with one known fact.
#[test]
fn an_ack_that_begins_is_judged_as_a_syn() {
    let rate = Rate::new(1, 1);
    let limits = Settings { deny: 3, allow: 3, bans: 3, spent: 3, syn: rate, ..settings(Gate::Pass) };
    let settings = Settings { over: Over::Drop as u8, prefix_v4: 32, prefix_v6: 56, ..limits };
    let ban = Ban { until_ns: 2, cause: 1, ..Ban::default() };
    let plain = Client::default();
    let spent = Spent { until_ns: 2, all_until_ns: 2 };
    let passes = Verdict::pass(Reason::Syn);
    for (client, wanted) in [
        (plain, passes),
        (Client { is_denied: true, ..plain }, Verdict::drop(Reason::Denied)),
        (Client { banned: Some(ban), ..plain }, Verdict::drop(Reason::Banned)),
        (Client { banned: Some(Ban { until_ns: 1, ..ban }), ..plain }, passes),
        (Client { banned: Some(ban), is_allowed: true, ..plain }, Verdict::pass(Reason::Allowed)),
        (Client { spent, ..plain }, Verdict::drop(Reason::HandshakeCost)),
        (Client { is_pressed: true, ..plain }, Verdict::drop(Reason::Pressure)),
        (Client { is_over: true, ..plain }, Verdict::drop(Reason::DotSynRate)),
        (Client { is_over: true, is_allowed: true, ..plain }, Verdict::pass(Reason::Allowed)),
        (Client { is_over: true, is_own: true, ..plain }, Verdict::pass(Reason::Own)),
    ] {
        let packet = Packet::default();
        assert_eq!(judge_completion(&packet, &settings, &client), wanted);
        let off = Settings { dot_is_off: 1, ..settings };
        let is_barred = matches!(wanted.reason, Reason::Denied | Reason::Banned);
        let wanted_off = if is_barred { wanted } else { Verdict::drop(Reason::DotOff) };
        assert_eq!(judge_completion(&packet, &off, &client), wanted_off);
        let counting = judge_completion(&packet, &Settings { over: Over::Count as u8, ..settings }, &client);
        assert!(!matches!(counting.action, Action::Drop) || client.is_denied, "{counting:?}");
    }
}

proptest! {
    /// Goal: no octets make the judge panic, and every verdict is one that can be counted.
    #[test]
    fn any_octets_get_a_lawful_verdict(octets in plausible(), initial: u32, gate in 0u8..5, bits in 0u8..4, over in 0u8..4, own in 0u32..3) {
        let flow = Flow { learned_ns: 0, initial, offences: 0 };
        let rate = Rate::new(u32::from(over), 1);
        let limits = Settings { syn: rate, do53_query: rate, over, do53_query_over: over, bans: bits, spent: bits, ..settings(Gate::from_octet(gate)) };
        let settings = Settings { deny: bits, allow: 3, local: bits, own_interface: own, do53_is_limited: over & 1, prefix_v4: 32, prefix_v6: 56, ..limits };
        for known in [Always(None), Always(Some(flow))] {
            if let Some(verdict) = judge_frame(&octets.as_slice(), &PORTS, &settings, &known) {
                prop_assert!(verdict.reason.actions().contains(&verdict.action), "{verdict:?}");
            }
        }
    }
}
