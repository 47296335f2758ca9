//! The kernel half's parser and judge, on the host: any frame is judged within its bounds, the same each time.
//!
//! Before: two octets of settings and of what is known, then an Ethernet frame. After: parsed, judged, both ways.
//! Never: needs a kernel; `tests/tests/it/xdp_differential.rs` compares the two.

use std::cell::Cell;

use dot_common::{
    ban::Ban,
    flow::{Flow, FlowKey},
    judge::{Knowledge, judge, judge_frame},
    network::Network,
    others::is_for_others,
    packet::{Transport, parse, parse_syn_ack},
    proof::Proof,
    rate::Rate,
    settings::{Gate, Settings},
    spent::Spent,
    verdict::Action,
};
use dot_tests::xdp_lab::{PORTS, settings};

/// Gives answers chosen by two octets; counts the calls of `admits`.
struct Known {
    bits: u8,
    initial: u32,
    admissions: Cell<u32>,
}

impl Knowledge for Known {
    fn flow(&self, _: &FlowKey) -> Option<Flow> {
        let learned = Flow { learned_ns: 1, initial: self.initial, offences: u32::from(self.bits >> 6) };
        (self.bits & 1 != 0).then_some(learned)
    }

    fn now_ns(&self) -> u64 {
        1_000_000
    }

    fn is_local(&self, _: &FlowKey) -> bool {
        self.bits & 128 == 0
    }

    fn is_own(&self, own_interface: u32) -> bool {
        own_interface != 0
    }

    fn is_denied(&self, _: &FlowKey) -> bool {
        self.bits & 2 != 0
    }

    fn is_allowed(&self, _: &FlowKey) -> bool {
        self.bits & 4 != 0
    }

    fn is_banned(&self, _: &Network, holds: impl FnOnce(&Ban) -> bool) -> bool {
        let until_ns = if self.bits & 16 != 0 { 2_000_000 } else { 1 };
        holds(&Ban { until_ns, cause: u32::from(self.bits >> 6), ..Ban::default() })
    }

    fn spent(&self, network: &Network) -> Spent {
        let until_ns = if self.bits & 32 != 0 { 2_000_000 } else { 0 };
        let all_until_ns = if network.bits < 32 { until_ns } else { 0 };
        Spent { until_ns, all_until_ns }
    }

    fn proof(&self, _: &Network) -> Proof {
        match self.bits & 66 {
            66 => Proof::proven(2_000_000),
            64 => Proof::excessive(2_000_000),
            _ => Proof::default(),
        }
    }

    fn is_pressed(&self) -> bool {
        self.bits & 36 == 36
    }

    fn admits(&self, _: u64, _: &Rate) -> bool {
        self.admissions.set(self.admissions.get() + 1);
        self.bits & 8 != 0
    }
}

/// Runs the target.
///
/// # Panics
/// When a packet reaches beyond its frame, or two runs differ.
pub fn run(octets: &[u8]) {
    let Some((&[choice, bits], frame)) = octets.split_first_chunk() else { return };
    let settings = chosen(choice);
    let parsed = parse(&frame, &PORTS);
    assert_eq!(parsed, parse(&frame, &PORTS));
    assert!(
        !is_for_others(&frame, &PORTS) || parsed == Ok(None),
        "what is for others is attributed to no port of ours"
    );
    let known = Known { bits, initial: 0, admissions: Cell::new(0) };
    let verdict = judge_frame(&frame, &PORTS, &settings, &known);
    // Frames whose addresses are not found at all have no destination that could be another machine's.
    let is_found = !matches!(parsed, Ok(None));
    let may_be_others = settings.local != 0 && bits & 128 != 0 || settings.do53_is_limited == 0;
    assert!(verdict.is_none() || is_found, "ours is judged, and nothing else");
    assert!(verdict.is_some() || !is_found || may_be_others, "what is ours is judged");
    assert!(known.admissions.get() <= 1, "a packet is counted once");
    if let Ok(Some(packet)) = parsed {
        let (located, length) = (packet.located, u32::try_from(frame.len()).expect("a small frame"));
        assert!(located.ip < located.transport && located.end <= length);
        // A first fragment may end before its transport begins: it is dropped as a fragment, whatever it holds.
        let is_whole = !matches!(packet.transport, Transport::TcpFragment);
        assert!(located.transport < located.end || !is_whole);
        if let Transport::Tcp(segment) = packet.transport {
            assert_eq!(segment.payload_offset + segment.payload_octets, located.end);
        }
        let judgment = judge(&frame, &packet, &settings, &known);
        assert!(verdict.is_none() || Some(judgment.verdict) == verdict);
        assert_eq!(judgment.truncation.is_some(), judgment.verdict.action == Action::Answer);
        if let Some(answer) = judgment.truncation {
            assert!(
                answer.message_octets() <= located.end - located.transport - 8,
                "never longer than the query"
            );
        }
    }
    let _ = parse_syn_ack(&frame, &PORTS);
}

/// Settings by the bits of one octet: gates, lists, limits.
fn chosen(choice: u8) -> Settings {
    let gates = [Gate::Drop, Gate::Count, Gate::Pass, Gate::Drop];
    let mut settings = settings(gates[usize::from(choice & 3)]);
    settings.deny = choice >> 2 & 3;
    settings.allow = choice >> 4 & 3;
    (settings.bans, settings.spent) = (choice >> 3 & 3, choice >> 5 & 3);
    settings.spent_wide = settings.spent;
    settings.local = choice >> 4 & 3;
    settings.own_interface = u32::from(choice >> 7);
    settings.do53_is_limited = choice >> 1 & 1;
    if choice & 0x40 != 0 {
        settings.syn = limit();
    }
    if choice & 0x80 != 0 {
        settings.do53_query = limit();
    }
    settings
}

/// Any limit: `Known::admits` decides.
fn limit() -> Rate {
    Rate::new(10, 20)
}
