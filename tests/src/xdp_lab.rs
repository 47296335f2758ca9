//! Runs the kernel half on built frames, without an interface: BPF_PROG_TEST_RUN.
//!
//! Before: a test built a frame. After: the XDP action, the one verdict counted, and the frame as the program left it.
//! Holds: one loaded object with its own maps, so that tests run side by side.
//! Never: attaches or pins anything; everything ends with the lab.

use std::{iter, net::IpAddr};

use crate::xdp_flows::Flows;
pub use crate::xdp_settings::{PORTS, settings};
use aya::{
    Ebpf, EbpfLoader,
    maps::{
        Array, CpuMap, HashMap, MapData, PerCpuArray, ProgramArray, RingBuf,
        lpm_trie::{Key, LpmTrie},
    },
    programs::{ProgramError, SchedClassifier, TestRun, TestRunOptions, TestRunResult, Xdp},
};
use dot_common::{
    ban::Ban,
    client_cache::CachedClient,
    counters,
    flow::{Flow, FlowKey},
    maps,
    network::Network,
    notice::Fate,
    proof::Proof,
    settings::Settings,
    spent::Spent,
    tail_calls,
    verdict::{Reason, Verdict},
    worker_status::WorkerStatus,
};
use dot_userspace::xdp::object::OBJECT;

/// XDP_DROP.
pub const XDP_DROP: u32 = 1;
/// XDP_PASS.
pub const XDP_PASS: u32 = 2;
/// XDP_TX.
pub const XDP_TX: u32 = 3;

/// A loaded kernel half.
pub struct Lab {
    pub(crate) object: Ebpf,
    counters: PerCpuArray<MapData, u64>,
    settings: Array<MapData, Settings>,
    flows: Flows,
    rates: HashMap<MapData, u64, u64>,
    bans: HashMap<MapData, Network, Ban>,
    spent: HashMap<MapData, Network, Spent>,
    memos: PerCpuArray<MapData, CachedClient>,
    workers: Array<MapData, WorkerStatus>,
    written: Settings,
    notices: RingBuf<MapData>,
    /// Holds the slots of the tail calls: the kernel empties them when no process holds the map.
    slots: ProgramArray<MapData>,
    counted: Vec<u64>,
}

/// How a run of a program ended.
type Ran = Result<TestRunResult, ProgramError>;

/// The outcome for a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// [`XDP_DROP`], [`XDP_PASS`] or [`XDP_TX`].
    pub action: u32,
    /// The verdict that was counted; `None`: the frame is not for dotd.
    pub verdict: Option<Verdict>,
    /// The frame afterwards.
    pub octets: Vec<u8>,
}

impl Lab {
    /// Loads the object. `None`, with the reason printed, without root.
    #[must_use]
    pub fn open(test: &str, settings: &Settings) -> Option<Self> {
        Self::open_with_tail_calls(test, settings, &[])
    }

    /// The same with programs that follow the judge: slot and name.
    #[must_use]
    pub fn open_with_tail_calls(test: &str, settings: &Settings, tail_calls: &[(u32, &str)]) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            println!("SKIPPED {test}: BPF programs need root");
            return None;
        }
        let follow = tail_calls.iter().fold(0, |bits, (slot, _)| bits | tail_calls::bit(*slot));
        let (dot, do53) = PORTS.pack();
        let mut object = EbpfLoader::new()
            .override_global(maps::GLOBAL_PORTS_DOT, &dot, true)
            .override_global(maps::GLOBAL_PORT_DO53, &do53, true)
            .override_global(maps::GLOBAL_FOLLOW, &follow, true)
            .override_global(maps::GLOBAL_SPREAD_CPUS, &1u32, true)
            .map_max_entries(maps::FLOWS4, 4096)
            .map_max_entries(maps::FLOWS6, 4096)
            .map_max_entries(maps::RATE, 4096)
            .map_max_entries(maps::WORKERS, 1)
            .load(OBJECT)
            .expect("the object loads");
        let flows = Flows::take(&mut object);
        let mut take = |name: &str| object.take_map(name).expect("the object has all maps");
        let counters = PerCpuArray::try_from(take(maps::COUNTERS)).unwrap();
        let map = Array::try_from(take(maps::SETTINGS)).unwrap();
        let rates = HashMap::try_from(take(maps::RATE)).unwrap();
        let bans = HashMap::try_from(take(maps::BANS)).unwrap();
        let spent = HashMap::try_from(take(maps::SPENT)).unwrap();
        let workers = Array::try_from(take(maps::WORKERS)).unwrap();
        let memos = PerCpuArray::try_from(take(maps::MEMO)).unwrap();
        let notices = RingBuf::try_from(take(maps::NOTICES)).unwrap();
        let chain = ProgramArray::try_from(take(maps::CHAIN)).unwrap();
        let counted = vec![0; counters::COUNTERS as usize];
        let mut lab = Self {
            object,
            counters,
            settings: map,
            flows,
            rates,
            bans,
            spent,
            memos,
            workers,
            written: *settings,
            notices,
            slots: chain,
            counted,
        };
        lab.xdp().load().expect("the XDP program passes the verifier");
        lab.classifier(maps::PROGRAM_LEARN).load().expect("the learner passes the verifier");
        lab.classifier(maps::PROGRAM_INGRESS).load().expect("the judge at tc passes the verifier");
        for (slot, name) in tail_calls {
            lab.fill_slot(*slot, name);
        }
        lab.queue();
        lab.set(settings);
        Some(lab)
    }

    fn fill_slot(&mut self, slot: u32, name: &str) {
        let program: &mut Xdp = self.object.program_mut(name).expect(name).try_into().unwrap();
        program.load().unwrap_or_else(|error| panic!("{name} passes the verifier: {error:#?}"));
        self.slots.set(slot, program.fd().unwrap(), 0).unwrap();
    }

    /// A queue for the first CPU, to which all packets are moved.
    fn queue(&mut self) {
        let mut queues = CpuMap::try_from(self.object.map_mut(maps::CPU_QUEUES).unwrap()).unwrap();
        queues.set(0, 64, None, 0).expect("the first CPU is there");
    }

    /// The notices sent since the last call, in the order of the ring.
    pub fn notices(&mut self) -> Vec<Vec<u8>> {
        iter::from_fn(|| self.notices.next().map(|notice| notice.to_vec())).collect()
    }

    /// The number of notices with this fate so far.
    #[must_use]
    pub fn noticed(&self, fate: Fate) -> u64 {
        let counts: PerCpuArray<_, u64> =
            PerCpuArray::try_from(self.object.map(maps::NOTICE_COUNTS).unwrap()).unwrap();
        counts.get(&(fate as u32), 0).unwrap().iter().sum()
    }

    /// Resets the pace of a reason.
    pub fn reset_pace(&mut self, reason: Reason) {
        let mut pace = Array::try_from(self.object.map_mut(maps::NOTICE_PACE).unwrap()).unwrap();
        pace.set(reason as u32, 0u64, 0).unwrap();
    }

    /// Writes new settings with a new generation.
    pub fn set(&mut self, settings: &Settings) {
        let generation = self.written.generation + 1;
        self.written = Settings { generation, ..*settings };
        self.settings.set(0, self.written, 0).unwrap();
    }

    /// Invalidates what CPUs remember, as the loader does when a list or a ban has changed.
    fn renew(&mut self) {
        let written = self.written;
        self.set(&written);
    }

    /// Runs the XDP program once on a frame of at least 14 octets.
    ///
    /// # Panics
    /// When more than one verdict was counted.
    pub fn judge(&mut self, frame: &[u8]) -> Outcome {
        self.judge_by(frame, |lab, options| lab.xdp().test_run(options))
    }

    /// The same with the judge at tc ingress; the action is one of tc.
    ///
    /// # Panics
    /// As [`Lab::judge`].
    pub fn judge_at_tc(&mut self, frame: &[u8]) -> Outcome {
        self.judge_by(frame, |lab, options| lab.classifier(maps::PROGRAM_INGRESS).test_run(options))
    }

    fn judge_by(&mut self, frame: &[u8], run: impl FnOnce(&mut Self, TestRunOptions<'_>) -> Ran) -> Outcome {
        let mut octets = vec![0; frame.len()];
        let data_out = Some(&mut octets[..]);
        let options = TestRunOptions { data_in: Some(frame), data_out, ..Default::default() };
        let run = run(self, options).expect("the program runs");
        octets.truncate(run.data_size_out as usize);
        Outcome { action: run.return_value, verdict: self.newly_counted(), octets }
    }

    /// The action that the XDP program gives a frame, if it counts exactly `expected` with it; nothing for `None`.
    ///
    /// Reads one counter only, where [`Lab::judge`] reads all of them; [`Lab::surplus`] finds what was counted besides.
    pub fn judge_as(&mut self, frame: &[u8], expected: Option<Verdict>) -> Option<u32> {
        let options = TestRunOptions { data_in: Some(frame), ..Default::default() };
        let action = self.xdp().test_run(options).expect("the program runs").return_value;
        let Some(index) = expected.map(counters::index) else { return Some(action) };
        let now: u64 = self.counters.get(&index, 0).unwrap().iter().sum();
        let before = &mut self.counted[index as usize];
        let is_counted = now == *before + 1;
        *before = now;
        is_counted.then_some(action)
    }

    /// Everything that was counted since the last call and not expected.
    pub fn surplus(&mut self) -> Vec<(Verdict, u64)> {
        self.newly_counted_any().into_iter().map(|(index, count)| (verdict(index), count)).collect()
    }

    /// Nanoseconds per frame, over that many runs of a program (`maps::PROGRAM_…`) on the same frame.
    pub fn nanoseconds(&mut self, program: &str, frame: &[u8], repeat: u32) -> u128 {
        let options = TestRunOptions { data_in: Some(frame), repeat, ..Default::default() };
        let ran = match program {
            maps::PROGRAM_XDP => self.xdp().test_run(options),
            _ => self.classifier(program).test_run(options),
        };
        self.newly_counted_any();
        ran.expect("the program runs").duration.as_nanos()
    }

    /// Shows one of dotd's own frames to the learner.
    pub fn learn(&mut self, frame: &[u8]) -> u32 {
        let options = TestRunOptions { data_in: Some(frame), ..Default::default() };
        self.classifier(maps::PROGRAM_LEARN).test_run(options).expect("the learner runs").return_value
    }

    /// The record of a connection.
    #[must_use]
    pub fn flow(&self, key: &FlowKey) -> Option<Flow> {
        self.flows.get(key)
    }

    /// The records of all connections.
    #[must_use]
    pub fn flows(&self) -> Vec<(FlowKey, Flow)> {
        self.flows.all()
    }

    /// Writes down a connection, as the learner would.
    pub fn know(&mut self, key: &FlowKey, flow: &Flow) {
        self.flows.insert(key, flow);
    }

    /// Puts a prefix on the deny list; the settings must say that the list has entries.
    pub fn deny(&mut self, address: IpAddr, bits: u32) {
        self.list([maps::DENY4, maps::DENY6], address, bits);
    }

    /// Puts a prefix on the allow list, in the same way.
    pub fn allow(&mut self, address: IpAddr, bits: u32) {
        self.list([maps::ALLOW4, maps::ALLOW6], address, bits);
    }

    /// Makes a prefix local to this machine, in the same way.
    pub fn own(&mut self, address: IpAddr, bits: u32) {
        self.list([maps::LOCAL4, maps::LOCAL6], address, bits);
    }

    /// The keys of all clients whose rate is known.
    #[must_use]
    pub fn rated(&self) -> Vec<u64> {
        self.rates.keys().collect::<Result<_, _>>().unwrap()
    }

    /// Bans the /32 or /56 of a client.
    pub fn ban(&mut self, client: IpAddr, ban: &Ban) {
        self.ban_network(Network::of(client, 32, 56), ban);
    }

    /// Bans a network of any level.
    pub fn ban_network(&mut self, network: Network, ban: &Ban) {
        self.bans.insert(network, ban, 0).unwrap();
        self.renew();
    }

    /// Lifts every ban.
    pub fn lift_bans(&mut self) {
        for key in self.bans.keys().collect::<Result<Vec<_>, _>>().unwrap() {
            self.bans.remove(&key).unwrap();
        }
        self.renew();
    }

    /// The ban of a client's /32 or /56, with the hits that CPUs have still to add.
    #[must_use]
    pub fn banned(&self, client: IpAddr) -> Option<Ban> {
        self.banned_network(Network::of(client, 32, 56))
    }

    /// The same of a network of any level.
    #[must_use]
    pub fn banned_network(&self, network: Network) -> Option<Ban> {
        let ban = self.bans.get(&network, 0).ok()?;
        let memos = (0..maps::MEMO_MAX).map(|place| self.memos.get(&place, 0).unwrap());
        let owed =
            |memo: &CachedClient| if memo.owes() == Some(&network) && memo.met(&ban) { memo.hits } else { 0 };
        let owed: u64 = memos.map(|of_all| of_all.iter().map(owed).sum::<u64>()).sum();
        Some(Ban { hits: ban.hits + owed, ..ban })
    }

    /// Says until when the /32 or /56 of a client has spent its handshake budget.
    pub fn spend(&mut self, client: IpAddr, until_ns: u64) {
        self.spend_network(Network::of(client, 32, 56), Spent { until_ns, all_until_ns: 0 });
    }

    /// The same of a network of any level.
    pub fn spend_network(&mut self, network: Network, spent: Spent) {
        self.spent.insert(network, spent, 0).unwrap();
    }

    /// Says what the connections of a client's /32 or /64 say of it.
    pub fn prove(&mut self, client: IpAddr, proof: Proof) {
        self.prove_network(Network::of_host(client), proof);
    }

    /// The same of a network of any level.
    pub fn prove_network(&mut self, network: Network, proof: Proof) {
        let mut proven: HashMap<_, Network, Proof> =
            HashMap::try_from(self.object.map_mut(maps::PROVEN).unwrap()).unwrap();
        proven.insert(network, proof, 0).unwrap();
    }

    /// Closes the only worker until this time; 0: it is open.
    pub fn close_workers(&mut self, closed_until_ns: u64) {
        self.workers.set(0, WorkerStatus { closed_until_ns, ..WorkerStatus::default() }, 0).unwrap();
    }

    /// Forgets all rates.
    pub fn forget_rates(&mut self) {
        for key in self.rated() {
            self.rates.remove(&key).unwrap();
        }
    }

    fn list(&mut self, [v4, v6]: [&str; 2], address: IpAddr, bits: u32) {
        match address {
            IpAddr::V4(address) => {
                let mut trie =
                    LpmTrie::<_, [u8; 4], u32>::try_from(self.object.map_mut(v4).unwrap()).unwrap();
                trie.insert(&Key::new(bits, address.octets()), 1, 0).unwrap();
            }
            IpAddr::V6(address) => {
                let mut trie =
                    LpmTrie::<_, [u8; 16], u32>::try_from(self.object.map_mut(v6).unwrap()).unwrap();
                trie.insert(&Key::new(bits, address.octets()), 1, 0).unwrap();
            }
        }
        self.renew();
    }

    fn newly_counted(&mut self) -> Option<Verdict> {
        let new = self.newly_counted_any();
        assert!(new.iter().map(|(_, count)| count).sum::<u64>() <= 1, "one frame, several verdicts: {new:?}");
        let index = new.first()?.0;
        Some(verdict(index))
    }

    pub(crate) fn newly_counted_any(&mut self) -> Vec<(u32, u64)> {
        let mut new = Vec::new();
        for (index, before) in (0..).zip(&mut self.counted) {
            let now = self.counters.get(&index, 0).unwrap().iter().sum();
            if now != *before {
                new.push((index, now - *before));
                *before = now;
            }
        }
        new
    }

    pub(crate) fn xdp(&mut self) -> &mut Xdp {
        self.object.program_mut(maps::PROGRAM_XDP).unwrap().try_into().unwrap()
    }

    fn classifier(&mut self, name: &str) -> &mut SchedClassifier {
        self.object.program_mut(name).unwrap().try_into().unwrap()
    }
}

/// The verdict of a counter.
pub(crate) fn verdict(index: u32) -> Verdict {
    counters::rows().find(|one| counters::index(*one) == index).expect("only what can be is counted")
}
