//! The maps of the kernel half, and the access to each.
//!
//! Lists of prefixes are in `lists`. Names, sizes and shapes are dot_common's; a static here has its name from
//! [`dot_common::maps`].
//! Holds: every access that needs `unsafe`, so that no other file needs `unsafe` for maps.
//! Never: judges the values that it reads.

use core::arch::asm;

use aya_ebpf::{
    Global,
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC, BPF_NOEXIST},
    helpers::{bpf_csum_diff, bpf_jiffies64, bpf_ktime_get_coarse_ns, bpf_ktime_get_ns, bpf_xdp_load_bytes},
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray, ReusePortSockArray},
    programs::XdpContext,
};
use dot_common::{
    ban::Ban,
    client_cache::{self, CachedClient, Standing},
    client_lists::Said,
    counters,
    flow::{Flow, FlowKey},
    maps::{BANS_MAX, CPUS_MAX, FLOWS_MAX, MEMO_MAX, PROVEN_MAX, RATE_MAX, SPENT_MAX, WORKERS_MAX},
    network::Network,
    proof::Proof,
    rate::Rate,
    settings::Settings,
    spent::Spent,
    verdict::Verdict,
    worker_status::WorkerStatus,
};

use crate::context::opaque;

#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(counters::COUNTERS, 0);

#[map]
static SETTINGS: Array<Settings> = Array::with_max_entries(1, 0);

#[map]
static FLOWS4: LruHashMap<[u32; 3], Flow> = LruHashMap::with_max_entries(FLOWS_MAX, 0);

#[map]
static FLOWS6: LruHashMap<[u32; 9], Flow> = LruHashMap::with_max_entries(FLOWS_MAX, 0);

#[map]
static RATE: LruHashMap<u64, u64> = LruHashMap::with_max_entries(RATE_MAX, 0);

#[map]
static BANS: HashMap<Network, Ban> = HashMap::with_max_entries(BANS_MAX, BPF_F_NO_PREALLOC);

#[map]
static SPENT: HashMap<Network, Spent> = HashMap::with_max_entries(SPENT_MAX, BPF_F_NO_PREALLOC);

#[map]
static PROVEN: LruHashMap<Network, Proof> = LruHashMap::with_max_entries(PROVEN_MAX, 0);

/// A UDP datagram that dotd sends: 8 octets of header, 12, 259 and 11 of message.
const ANSWER_OCTETS: usize = 512;

#[map]
static ANSWER: PerCpuArray<[u32; ANSWER_OCTETS / 4]> = PerCpuArray::with_max_entries(1, 0);

#[map]
static MEMO: PerCpuArray<CachedClient> = PerCpuArray::with_max_entries(MEMO_MAX, 0);

/// Listeners of one SO_REUSEPORT group by worker.
#[map]
pub(crate) static SOCKETS: ReusePortSockArray = ReusePortSockArray::with_max_entries(WORKERS_MAX, 0);

/// The place of each CPU among those that workers are pinned to.
#[map]
static PLACES: Array<u32> = Array::with_max_entries(CPUS_MAX, 0);

/// See [`PLACES`].
#[inline(always)]
pub(crate) fn place(cpu: u32) -> Option<u32> {
    PLACES.get(cpu).copied()
}

/// Entries of the workers, which they store into memory that they have mapped.
#[map]
static WORKERS: Array<WorkerStatus> = Array::with_max_entries(WORKERS_MAX, BPF_F_MMAPABLE);

/// Workers, and with them listeners of a group; set by the loader before a program loads.
#[unsafe(no_mangle)]
pub(crate) static WORKER_COUNT: Global<u32> = Global::new(1);

/// The entry of a worker.
#[inline(always)]
pub(crate) fn worker_status(worker: u32) -> Option<WorkerStatus> {
    let status = WORKERS.get_ptr(worker)?;
    // SAFETY: a checked map value; each word is stored whole, and may be slightly older than the next one.
    unsafe {
        Some(WorkerStatus {
            open: (&raw const (*status).open).read_volatile(),
            share: (&raw const (*status).share).read_volatile(),
            closed_until_ns: (&raw const (*status).closed_until_ns).read_volatile(),
            ..WorkerStatus::default()
        })
    }
}

/// Until when a worker takes no connections; see [`WorkerStatus`].
#[inline(always)]
pub(crate) fn closed_until_ns(worker: u32) -> Option<u64> {
    let status = WORKERS.get_ptr(worker)?;
    // SAFETY: as in [`worker_status`].
    Some(unsafe { (&raw const (*status).closed_until_ns).read_volatile() })
}

/// Adds one to a verdict's counter.
#[inline(always)]
pub(crate) fn count(verdict: Verdict) {
    if let Some(counter) = COUNTERS.get_ptr_mut(counters::index(verdict)) {
        // SAFETY: a checked map value of this CPU; no program of ours interrupts another on it.
        unsafe { *counter += 1 };
    }
}

/// The loader's settings; all zero before the loader has written them, so that no packet is for dotd.
#[inline(always)]
pub(crate) fn settings() -> Option<&'static Settings> {
    SETTINGS.get(0)
}

/// The current generation of the settings.
#[inline(always)]
pub(crate) fn generation(settings: &Settings) -> u32 {
    // SAFETY: one aligned word of a map value; volatile, so that it is read here and once.
    unsafe { (&raw const settings.generation).read_volatile() }
}

/// The record of a connection.
#[inline(always)]
pub(crate) fn flow(key: &FlowKey) -> Option<Flow> {
    // SAFETY: the value is copied at once; a concurrent write can tear it, which costs one wrong verdict, about a
    // segment of a connection that is being opened a second time.
    Some(unsafe { *flow_of(key)? })
}

/// Writes down a connection.
#[inline(always)]
pub(crate) fn remember(key: &FlowKey, flow: &Flow) {
    // A full map evicts its oldest entry; a failure leaves the flow unknown, and unknown flows pass.
    let _ = if key.is_v6() { FLOWS6.insert(v6(key), flow, 0) } else { FLOWS4.insert(key.v4(), flow, 0) };
}

/// Forgets a connection.
#[inline(always)]
pub(crate) fn forget_flow(key: &FlowKey) {
    // One that is not there is forgotten already.
    let _ = if key.is_v6() { FLOWS6.remove(v6(key)) } else { FLOWS4.remove(key.v4()) };
}

#[inline(always)]
fn flow_of(key: &FlowKey) -> Option<*mut Flow> {
    if key.is_v6() { FLOWS6.get_ptr_mut(v6(key)) } else { FLOWS4.get_ptr_mut(key.v4()) }
}

/// [`FlowKey::v6`] in place: the flow's first words are the key.
#[inline(always)]
fn v6(key: &FlowKey) -> &[u32; 9] {
    // SAFETY: a repr(C) struct whose first 36 octets are these nine words.
    unsafe { &*(&raw const *key).cast() }
}

/// Counts one more refused segment of a connection, and returns how many came before.
#[inline(always)]
pub(crate) fn offend(key: &FlowKey) -> u32 {
    let Some(flow) = flow_of(key) else { return 0 };
    // SAFETY: a checked map value; a lost increment under a race is harmless.
    unsafe {
        let before = (*flow).offences;
        (*flow).offences = before.wrapping_add(1);
        before
    }
}

/// Whether a network has a ban that `holds`; if so, the hit is counted.
#[inline(always)]
pub(crate) fn is_banned(network: &Network, holds: impl FnOnce(&Ban) -> bool) -> bool {
    let Some(ban) = BANS.get_ptr_mut(network) else { return false };
    // SAFETY: a checked map value; a copy, so that it cannot change while `holds` looks at it. An update of the ban
    // replaces the whole value, and the old value stays valid until the program ends.
    if !holds(&unsafe { *ban }) {
        return false;
    }
    add_hits(ban, 1);
    true
}

#[inline(always)]
fn add_hits(ban: *mut Ban, hits: u64) {
    // SAFETY: a checked map value, aligned to eight octets; the second field of four.
    unsafe {
        asm!("lock *(u64 *)({ban} + 8) += {hits}", ban = in(reg) ban, hits = in(reg) hits, options(nostack))
    };
}

/// What this CPU remembers of a packet's client; a ban that refuses the packet, which `begins` something or does not, gets
/// a hit.
#[inline(always)]
pub(crate) fn recall(settings: &Settings, flow: &FlowKey, begins: bool) -> Option<Standing> {
    if settings.generation == 0 {
        return None;
    }
    let cached = MEMO.get_ptr_mut(client_cache::place(flow))?;
    // SAFETY: a checked map value of this CPU; no program of ours interrupts another on it.
    let cached = unsafe { &mut *cached };
    let standing = cached.recall(flow, settings.generation, tick)?;
    if standing.is_of_ban() && standing.reason(begins).is_some() {
        cached.hits += 1;
    }
    Some(standing)
}

/// Caches a packet's client in place of another one, whose ban first gets its outstanding hits. `generation` was read
/// before lists and bans were looked up.
#[inline(always)]
pub(crate) fn memorize(flow: &FlowKey, generation: u32, said: &Said) {
    let Some(cached) = MEMO.get_ptr_mut(client_cache::place(flow)) else { return };
    // SAFETY: a checked map value of this CPU; no program of ours interrupts another on it.
    let cached = unsafe { &mut *cached };
    if let Some(owed) = cached.owes()
        && let Some(ban) = BANS.get_ptr_mut(owed)
        // SAFETY: a checked map value, copied at once.
        && cached.met(&unsafe { *ban })
    {
        add_hits(ban, cached.hits);
    }
    let FlowKey { client, version, .. } = *flow;
    let Said { standing, banned: ban } = *said;
    let serial = if standing.is_of_ban() { serial(&ban) } else { 0 };
    let standing = standing as u32;
    *cached = CachedClient { client, version, generation, standing, serial, tick: tick(), ban, hits: 0 };
}

/// The [`Ban::serial`] of a ban; 0: the ban was just removed.
#[inline(always)]
fn serial(ban: &Network) -> u32 {
    // SAFETY: a checked map value, copied at once.
    BANS.get_ptr(ban).map_or(0, |ban| u32::from(unsafe { (*ban).serial }))
}

/// The tick of the kernel's clock, on which the coarse time is based, in one load.
#[inline(always)]
fn tick() -> u64 {
    // SAFETY: no arguments, no effect.
    unsafe { bpf_jiffies64() }
}

/// Until when the new connections of a network are refused.
#[inline(always)]
pub(crate) fn spent(network: &Network) -> Spent {
    // SAFETY: two aligned words, copied at once; a write replaces the value whole.
    unsafe { SPENT.get(network) }.copied().unwrap_or_default()
}

/// The proof of a network by the connections that it completed.
#[inline(always)]
pub(crate) fn proof(network: &Network) -> Proof {
    // SAFETY: one aligned word, copied at once.
    unsafe { PROVEN.get(network) }.copied().unwrap_or_default()
}

/// Whether one more packet is within its rate; if so, it is counted.
///
/// The schedule is one number, exchanged as a whole: CPUs that race for it lose nothing and admit nothing twice.
#[inline(always)]
pub(crate) fn admits(key: u64, rate: &Rate) -> bool {
    const TRIES: u32 = 3;
    const EEXIST: i32 = -17;
    // Within one tick of the coarse clock only a burst would be admitted.
    let now_ns = precise_now_ns();
    for _ in 0..TRIES {
        let Some(slot) = RATE.get_ptr_mut(key) else {
            let Some(next) = rate.admit(0, now_ns) else { return false };
            match RATE.insert(key, next, u64::from(BPF_NOEXIST)) {
                // Another CPU was first.
                Err(EEXIST) => continue,
                // If the map accepts no entry, the limit is not enforced, and no connection is refused.
                Ok(()) | Err(_) => return true,
            }
        };
        // SAFETY: a checked map value, aligned to eight octets; should the LRU give it to another client
        // meanwhile, the exchange finds another number and fails.
        let scheduled_ns = unsafe { slot.read_volatile() };
        let Some(next) = rate.admit(scheduled_ns, now_ns) else { return false };
        if exchange(slot, scheduled_ns, next) {
            return true;
        }
    }
    // A client that loses three races in a row sends on several CPUs within nanoseconds.
    false
}

/// The schedule of a rate; 0: it has none.
#[inline(always)]
pub(crate) fn scheduled_ns(key: u64) -> u64 {
    // SAFETY: one aligned word, copied at once.
    unsafe { RATE.get(key) }.map_or(0, |scheduled_ns| *scheduled_ns)
}

/// Puts `new` in place of `old`, if `old` is still there.
#[inline(always)]
pub(crate) fn exchange(slot: *mut u64, old: u64, new: u64) -> bool {
    let mut found = old;
    // SAFETY: a checked map value, aligned to eight octets. The instruction compares with, and answers in, r0.
    unsafe {
        asm!("r0 = cmpxchg_64({slot} + 0, r0, {new})", slot = in(reg) slot, new = in(reg) new,
            inout("r0") found, options(nostack));
    }
    found == old
}

/// The checksum over `octets` of a frame from `offset` on, added to `seed`; never zero, as UDP wants it. The result is
/// in the frame's octet order.
#[inline(always)]
pub(crate) fn checksum(context: &XdpContext, offset: u32, octets: u32, seed: u32) -> Option<u16> {
    let buffer = ANSWER.get_ptr_mut(0)?;
    // Whole words, the last one padded with zeros: 1 to 512 octets by construction, as Linux 6.1 can see.
    let count = (opaque(octets.wrapping_sub(1) as usize) & (ANSWER_OCTETS - 1)) + 1;
    let last = opaque(count - 1) & (ANSWER_OCTETS - 4);
    // SAFETY: a checked map value of this CPU; `last` is a word's offset within it.
    unsafe { buffer.cast::<u8>().add(last).cast::<u32>().write_volatile(0) };
    // SAFETY: `count` is at most the buffer's length.
    if unsafe { bpf_xdp_load_bytes(context.ctx, offset, buffer.cast(), count as u32) } != 0 {
        return None;
    }
    let words_octets = last as u32 + 4;
    // SAFETY: `words_octets` is at most the buffer's length, and a multiple of four.
    let sum = unsafe { bpf_csum_diff(core::ptr::null_mut(), 0, buffer.cast(), words_octets, seed) };
    if sum < 0 {
        return None;
    }
    let sum = sum as u32;
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = !(((sum & 0xffff) + (sum >> 16)) as u16);
    Some(if sum == 0 { 0xffff } else { sum })
}

/// Monotonic time in nanoseconds, with the resolution of a tick: enough to measure a minute, at a third of the cost.
#[inline(always)]
pub(crate) fn now_ns() -> u64 {
    // SAFETY: no arguments, no effect.
    unsafe { bpf_ktime_get_coarse_ns() }
}

/// The same with the resolution of the processor's clock.
#[inline(always)]
pub(crate) fn precise_now_ns() -> u64 {
    // SAFETY: no arguments, no effect.
    unsafe { bpf_ktime_get_ns() }
}
