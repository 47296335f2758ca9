//! The compiled kernel half must decide exactly as the same Rust code does on this machine.
//!
//! Holds: 100,000 frames, built, mutated and random; the verifier-friendly reads of dot-ebpf against plain
//! slices. Needs root; prints SKIPPED without.
//! Never: uses a clock or a random seed from outside: a failure prints the frame, and can be repeated.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use dot_common::{
    ban::{Ban, Cause},
    flow::{Flow, FlowKey},
    judge::{Knowledge, judge_frame},
    network::Network,
    proof::Proof,
    rate::Rate,
    settings::{Gate, Over, Settings},
    spent::Spent,
    verdict::{Action, Reason, Verdict},
};
use dot_tests::{
    frames::{ACK, Build, CLEARTEXT_QUERY, CLIENT_HELLO, FIN, Fragment, OPT, PSH, QUERY, RST, SYN, shapes},
    xdp_lab::{Lab, PORTS, XDP_DROP, XDP_PASS, XDP_TX, settings},
};

const FRAMES: u32 = 100_000;
const INITIAL: u32 = 0xffff_fff0;

/// xorshift64*: the only source of randomness.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.roll() % limit as u64) as usize
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

/// Of the two clients of each IP version, the one that is denied.
const DENIED: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 200)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xbad, 0, 0, 0, 0, 9)),
];

/// Destinations that belong to another machine.
const OTHERS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x8000, 0, 0, 0, 0, 9)),
];

/// As [`DENIED`], for the allow list.
const ALLOWED: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 100)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xa, 0, 0, 0, 0, 9))];

/// Clients that are banned: by an operator, by the engine, by an operator until a time that is over, and one that is
/// also on the allow list.
const BANNED: [(IpAddr, Cause, bool); 5] = [
    (IpAddr::V4(Ipv4Addr::new(192, 0, 2, 50)), Cause::Operator, true),
    (IpAddr::V4(Ipv4Addr::new(192, 0, 2, 51)), Cause::Garbage, true),
    (IpAddr::V4(Ipv4Addr::new(192, 0, 2, 52)), Cause::Operator, false),
    (IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xb, 0, 0, 0, 0, 9)), Cause::Malformed, true),
    (ALLOWED[1], Cause::Operator, true),
];

/// Clients whose handshake budget is spent: for ever, and until a time that has passed.
const SPENT: [(IpAddr, u64); 3] = [
    (IpAddr::V4(Ipv4Addr::new(192, 0, 2, 60)), u64::MAX),
    (IpAddr::V4(Ipv4Addr::new(192, 0, 2, 61)), 1),
    (IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 9)), u64::MAX),
];

/// Wider prefixes that have spent their budget: for hosts without a proof, for all hosts, and until a time that is over.
const WIDE_SPENT: [(IpAddr, Spent); 4] = [
    (CLIENT_V4_NETWORK, Spent { until_ns: u64::MAX, all_until_ns: 0 }),
    (IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)), Spent { until_ns: u64::MAX, all_until_ns: u64::MAX }),
    (IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)), Spent { until_ns: 1, all_until_ns: 1 }),
    (
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xd, 0, 0, 0, 0, 9)),
        Spent { until_ns: u64::MAX, all_until_ns: 0 },
    ),
];

/// That of built frames.
const CLIENT_V4_NETWORK: IpAddr = IpAddr::V4(dot_tests::frames::CLIENT_V4);

/// A client that has finished handshakes: that of built frames.
const PROVEN: IpAddr = IpAddr::V4(dot_tests::frames::CLIENT_V4);

/// A burst of two, then one an hour: no machine is so slow that the clocks of the two sides matter.
const RATE: Rate = Rate { period_ns: HOUR_NS, tolerance_ns: HOUR_NS };
const HOUR_NS: u64 = 3_600_000_000_000;

/// The flows of both sides, and the schedules of this side.
struct Known {
    flows: HashMap<FlowKey, Flow>,
    schedules: RefCell<HashMap<u64, u64>>,
    bans: RefCell<HashMap<Network, Ban>>,
    is_pressed: Cell<bool>,
}

impl Knowledge for Known {
    fn flow(&self, key: &FlowKey) -> Option<Flow> {
        self.flows.get(key).copied()
    }

    fn now_ns(&self) -> u64 {
        // Later than any test machine's uptime: flows of time 0 are over, those of time u64::MAX are not.
        1 << 60
    }

    fn is_local(&self, flow: &FlowKey) -> bool {
        let [first, ..] = flow.server_words();
        // 192.0.2.0/24 and 2001:db8::/33.
        if flow.is_v6() {
            first == 0x2001_0db8 && flow.server_words()[1] >> 31 == 0
        } else {
            first >> 8 == 0xc0_0002
        }
    }

    fn is_own(&self, own_interface: u32) -> bool {
        // TestRun's frames come in on lo.
        own_interface == 1
    }

    fn is_denied(&self, flow: &FlowKey) -> bool {
        let [first, second, _, _] = flow.client_words();
        // 192.0.2.192/26 and 2001:db8:bad::/48.
        if flow.is_v6() {
            first == 0x2001_0db8 && second >> 16 == 0x0bad
        } else {
            first >> 6 == 0xc000_02c0 >> 6
        }
    }

    fn is_allowed(&self, flow: &FlowKey) -> bool {
        let [first, second, _, _] = flow.client_words();
        // 192.0.2.100/32 and 2001:db8:a::/48.
        if flow.is_v6() { first == 0x2001_0db8 && second >> 16 == 0xa } else { first == 0xc000_0264 }
    }

    fn is_banned(&self, network: &Network, holds: impl FnOnce(&Ban) -> bool) -> bool {
        let mut bans = self.bans.borrow_mut();
        let Some(ban) = bans.get_mut(network) else { return false };
        let is_banned = holds(ban);
        ban.hits += u64::from(is_banned);
        is_banned
    }

    fn spent(&self, network: &Network) -> Spent {
        let spent = SPENT.iter().find(|(address, ..)| Network::of(*address, 32, 56) == *network);
        let wide = WIDE_SPENT.iter().find(|(address, ..)| Network::of(*address, 24, 48) == *network);
        // The kernel's clock has some time left until u64::MAX; this one is far ahead of it.
        let of_client = spent.map(|(_, until_ns)| Spent { until_ns: *until_ns, all_until_ns: 0 });
        of_client.or(wide.map(|(_, spent)| *spent)).unwrap_or_default()
    }

    fn proof(&self, network: &Network) -> Proof {
        if Network::of_host(PROVEN) == *network { Proof::proven(u64::MAX) } else { Proof::default() }
    }

    fn is_pressed(&self) -> bool {
        self.is_pressed.get()
    }

    fn admits(&self, key: u64, rate: &Rate) -> bool {
        let mut schedules = self.schedules.borrow_mut();
        let next = rate.admit(schedules.get(&key).copied().unwrap_or(0), self.now_ns());
        if let Some(next) = next {
            schedules.insert(key, next);
        }
        next.is_some()
    }
}

/// Sometimes with more tags and extension headers, up to more than are walked, or with a fragment header among them.
fn winding(dice: &mut Dice, build: Build) -> Build {
    match dice.below(24) {
        0 => (0..dice.below(11)).fold(build, |build, _| build.tag(0x8100)),
        1 | 2 => {
            let headers = dice.below(11);
            (0..headers).fold(build.v6(), |build, _| match dice.one_of(&[0, 43, 44, 51, 60, 60, 60, 135]) {
                51 => build.extension(51, 12),
                number => build.extension(number, 8),
            })
        }
        _ => build,
    }
}

/// A frame: built with some arrangement of headers, then perhaps changed, truncated or extended; or random octets.
fn frame(dice: &mut Dice) -> Vec<u8> {
    let all_shapes = shapes();
    let mut octets = {
        let mut payload =
            dice.one_of(&[&CLIENT_HELLO[..], &CLEARTEXT_QUERY, b"", b"\x16", b"\x16\x03\x01"]).to_vec();
        payload.resize(dice.one_of(&[payload.len(), 0, 1, 5, 6, 7, 8, 9, 300]), 3);
        let port = dice.one_of(&[853, 853, 853, 8853, 53, 53, 443]);
        let flags = dice.one_of(&[ACK, PSH | ACK, SYN, SYN | ACK, RST, FIN | ACK, 0]);
        let place = dice.one_of(&[0, 0, 1, 2, 5, 6, 7, 600, u32::MAX, u32::MAX - 3, 1 << 31, (1 << 31) - 1]);
        let build = if dice.below(4) == 0 {
            let mut message = QUERY.to_vec();
            message.extend(dice.one_of(&[&OPT[..], &[], &[7; 20]]));
            message[2] = dice.one_of(&[1, 1, 1, 1, 0x81, 0x28]);
            Build::udp(port, if dice.below(3) == 0 { &payload } else { &message })
        } else {
            Build::tcp(port, flags, INITIAL.wrapping_add(1).wrapping_add(place), &payload)
        };
        let build = build.client_port(dice.one_of(&[40_000, 40_000, 40_001, 40_002]));
        let shape = all_shapes[dice.below(all_shapes.len())].1;
        let build = match dice.below(12) {
            0 => build.fragment(Fragment::First),
            1 => build.fragment(Fragment::Later(dice.one_of(&[1, 2, 8191]))),
            _ => build,
        };
        let build = shape(build);
        let build = winding(dice, build);
        let is_v6 = build.source().is_ipv6();
        let build = match dice.below(16) {
            0 => build.server(OTHERS[usize::from(is_v6)]),
            _ => build,
        };
        let build = match dice.below(8) {
            0 => build.client(DENIED[usize::from(is_v6)]),
            1 => build.client(ALLOWED[usize::from(is_v6)]),
            3 => match SPENT[dice.below(SPENT.len())].0 {
                spent if spent.is_ipv6() == is_v6 => build.client(spent),
                _ => build,
            },
            4 => match WIDE_SPENT[dice.below(WIDE_SPENT.len())].0 {
                spent if spent.is_ipv6() == is_v6 => build.client(spent),
                _ => build,
            },
            2 => match BANNED[dice.below(BANNED.len())].0 {
                banned if banned.is_ipv6() == is_v6 => build.client(banned),
                _ => build,
            },
            _ => build,
        };
        build.frame().octets
    };
    if dice.below(40) == 0 {
        octets.truncate(14 + dice.below(120));
        octets.fill_with(|| dice.roll() as u8);
        return octets;
    }
    // Changes matter in headers: the first 120 octets.
    for _ in 0..dice.one_of(&[0, 0, 1, 1, 2, 4]) {
        let place = 12 + dice.below(octets.len().min(120) - 12);
        octets[place] =
            dice.one_of(&[0, 1, 4, 5, 6, 17, 44, 51, 60, 0x40, 0x45, 0x60, 0x86, 0xff, octets[place] ^ 1]);
    }
    match dice.below(8) {
        0 => octets.truncate(14 + dice.below(octets.len() - 13)),
        1 => octets.resize(octets.len() + dice.below(40), 0),
        _ => {}
    }
    octets
}

/// Writes flows, lists, bans and budgets into the kernel's maps; returns the same for this side.
fn both_know(lab: &mut Lab) -> Known {
    for port in [853, 8853, 53] {
        for build in [Build::syn_ack(port, INITIAL), Build::syn_ack(port, INITIAL).v6()] {
            lab.learn(&build.frame().octets);
            lab.learn(&build.client_port(40_001).frame().octets);
        }
    }
    // 40,000 is always young, 40,001 always old, 40,002 unknown.
    let mut known = Known {
        flows: lab.flows().into_iter().collect(),
        schedules: RefCell::default(),
        bans: RefCell::default(),
        is_pressed: Cell::default(),
    };
    assert_eq!(known.flows.len(), 12);
    for (key, flow) in &mut known.flows {
        flow.learned_ns = if key.ports >> 16 == 40_000 { u64::MAX } else { 0 };
        lab.know(key, flow);
    }
    lab.own(Ipv4Addr::new(192, 0, 2, 0).into(), 24);
    lab.own(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0).into(), 33);
    lab.deny(DENIED[0], 26);
    lab.deny(DENIED[1], 48);
    lab.allow(ALLOWED[0], 32);
    lab.allow(ALLOWED[1], 48);
    for (client, cause, stands) in BANNED {
        let until_ns = if stands { u64::MAX } else { 1 };
        let ban = Ban { until_ns, cause: cause as u32, ..Ban::default() };
        lab.ban(client, &ban);
        known.bans.borrow_mut().insert(Network::of(client, 32, 56), ban);
    }
    lab.prove(PROVEN, Proof::proven(u64::MAX));
    for (client, spent) in WIDE_SPENT {
        lab.spend_network(Network::of(client, 24, 48), spent);
    }
    for (client, until_ns) in SPENT {
        lab.spend(client, until_ns);
    }
    known
}

/// Goal: the results of tests and fuzzers for the Rust code hold for the compiled object: same verdict, counted once,
/// same action. Method: 100,000 frames through both, with each gate mode in turn.
#[test]
fn kernel_and_host_agree() {
    let Some(mut lab) = Lab::open("kernel_and_host_agree", &settings(Gate::Drop)) else { return };
    let known = both_know(&mut lab);
    let mut dice = Dice(0x0853_0853_0853_0853);
    let mut seen = HashMap::<Option<(&str, &str)>, u32>::new();
    for round in 0..FRAMES {
        let gate = [Gate::Drop, Gate::Count, Gate::Pass][round as usize % 3];
        let rate = dice.one_of(&[RATE, RATE, Rate::default()]);
        let settings = Settings {
            deny: dice.one_of(&[3, 3, 2, 1, 0]),
            allow: dice.one_of(&[3, 3, 2, 1, 0]),
            bans: dice.one_of(&[3, 3, 2, 1, 0]),
            spent: dice.one_of(&[3, 3, 2, 1, 0]),
            spent_wide: dice.one_of(&[3, 2, 1, 0, 0, 0]),
            local: dice.one_of(&[3, 3, 2, 1, 0]),
            own_interface: dice.one_of(&[0, 0, 0, 1]),
            do53_is_limited: dice.one_of(&[1, 1, 0]),
            has_cookies: dice.one_of(&[0, 1]),
            dot_is_off: dice.one_of(&[0, 0, 0, 1]),
            over: dice.one_of(&[Over::Drop, Over::Count]) as u8,
            do53_query_over: dice.one_of(&[Over::Drop, Over::Count, Over::Truncate, Over::Truncate]) as u8,
            syn: rate,
            do53_query: rate,
            ..settings(gate)
        };
        if round % 2_000 == 0 {
            lab.forget_rates();
            known.schedules.borrow_mut().clear();
        }
        lab.set(&settings);
        known.is_pressed.set(dice.below(8) == 0);
        lab.close_workers(if known.is_pressed.get() { u64::MAX - 1 } else { 0 });
        let octets = frame(&mut dice);
        let host = judge_frame(&octets.as_slice(), &PORTS, &settings, &known);
        let kernel = lab.judge_as(&octets, host);
        assert!(kernel.is_some(), "frame {round}, gate {gate:?}: not {host:?}: {octets:02x?}");
        let action = match host.map_or(Action::Pass, |verdict| verdict.action) {
            Action::Pass | Action::WouldDrop => XDP_PASS,
            Action::Drop => XDP_DROP,
            Action::Answer => XDP_TX,
        };
        assert_eq!(kernel, Some(action), "frame {round}: {octets:02x?}");
        // Checked every 50 frames: nothing was counted where nothing should be.
        if round % 50 == 49 {
            assert_eq!(lab.surplus(), [], "one of the 50 frames before {round}");
        }
        let name = |verdict: Verdict| (verdict.action.name(), verdict.reason.name());
        *seen.entry(host.map(name)).or_default() += 1;
    }
    println!("{seen:#?}");
    for (client, ..) in BANNED {
        let key = Network::of(client, 32, 56);
        assert_eq!(lab.banned(client).as_ref(), known.bans.borrow().get(&key), "{client}: hits");
    }
    let missing: Vec<_> = dot_common::counters::rows()
        // The verdict of a program that follows the judge.
        .filter(|verdict| verdict.reason != Reason::SynCookie)
        .filter(|verdict| !seen.contains_key(&Some((verdict.action.name(), verdict.reason.name()))))
        .collect();
    assert!(missing.is_empty(), "these frames never met {missing:?}: they prove too little");
}
