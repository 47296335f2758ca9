//! The maps of the kernel half, and what may be done with each.
//!
//! Names, sizes and shapes are dot_common's; a static here is called what [`dot_common::maps`] says.
//! Holds: every access that needs `unsafe`, so that no other room does for maps.

use aya_ebpf::{
    helpers::bpf_ktime_get_coarse_ns,
    macros::map,
    maps::{Array, LpmTrie, LruHashMap, PerCpuArray, ReusePortSockArray, lpm_trie::Key},
};
use dot_common::{
    counters,
    flow::{Flow, FlowKey},
    frame::Located,
    maps::{FLOWS_MAX, LISTED_MAX, WORKERS_MAX},
    settings::Settings,
    verdict::Verdict,
};

#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(counters::COUNTERS, 0);

#[map]
static SETTINGS: Array<Settings> = Array::with_max_entries(1, 0);

#[map]
static FLOWS: LruHashMap<FlowKey, Flow> = LruHashMap::with_max_entries(FLOWS_MAX, 0);

#[map]
static DENY4: LpmTrie<u32, u32> = LpmTrie::with_max_entries(LISTED_MAX, 0);

#[map]
static DENY6: LpmTrie<[u32; 4], u32> = LpmTrie::with_max_entries(LISTED_MAX, 0);

#[map]
static SCRATCH: PerCpuArray<Located> = PerCpuArray::with_max_entries(1, 0);

/// Listeners of one SO_REUSEPORT group by worker.
#[map]
pub(crate) static SOCKETS: ReusePortSockArray = ReusePortSockArray::with_max_entries(WORKERS_MAX, 0);

/// Adds one to the counter of a verdict.
#[inline(always)]
pub(crate) fn count(verdict: Verdict) {
    if let Some(counter) = COUNTERS.get_ptr_mut(counters::index(verdict)) {
        // SAFETY: a checked map value of this CPU; no program of ours interrupts another on it.
        unsafe { *counter += 1 };
    }
}

/// The loader's settings; all zero, and so nothing ours, before it wrote them.
#[inline(always)]
pub(crate) fn settings() -> Option<&'static Settings> {
    SETTINGS.get(0)
}

/// What we know of a connection.
#[inline(always)]
pub(crate) fn flow(key: &FlowKey) -> Option<Flow> {
    // A copy, so that the helper gets the address of these 40 octets and the rest of the packet stays in
    // registers: in memory, parts that are meaningless for this kind of packet would hold any register.
    let key = *key;
    // SAFETY: the value is copied at once; a concurrent write can tear it, which costs one wrong verdict on
    // a segment of a connection that is just being opened a second time.
    unsafe { FLOWS.get(key) }.copied()
}

/// Writes down a connection.
#[inline(always)]
pub(crate) fn remember(key: &FlowKey, flow: &Flow) {
    // A full map evicts its oldest entry; a failure leaves the flow unknown, and unknown flows pass.
    let _ = FLOWS.insert(key, flow, 0);
}

/// Counts one more refused segment of a connection, and returns how many came before.
#[inline(always)]
pub(crate) fn offend(key: &FlowKey) -> u32 {
    let key = *key;
    let Some(flow) = FLOWS.get_ptr_mut(key) else { return 0 };
    // SAFETY: a checked map value; a lost increment under a race is harmless.
    unsafe {
        let before = (*flow).offences;
        (*flow).offences = before.wrapping_add(1);
        before
    }
}

/// Whether the deny list holds a client.
#[inline(always)]
pub(crate) fn is_denied(flow: &FlowKey) -> bool {
    let [a, b, c, d] = flow.client;
    // Tries compare octets in the order of the wire.
    if flow.is_v6() {
        DENY6.get(Key::new(128, [a.to_be(), b.to_be(), c.to_be(), d.to_be()])).is_some()
    } else {
        DENY4.get(Key::new(32, a.to_be())).is_some()
    }
}

/// Sends a value through this CPU's scratch map, so that the verifier forgets its history.
#[inline(always)]
pub(crate) fn through_scratch(located: Located) -> Option<Located> {
    let scratch = SCRATCH.get_ptr_mut(0)?;
    // SAFETY: a checked map value of this CPU, aligned to eight octets.
    unsafe {
        scratch.write_volatile(located);
        Some(scratch.read_volatile())
    }
}

/// Monotonic time in nanoseconds, to a tick: enough for a minute, and a third of the cost.
#[inline(always)]
pub(crate) fn now_ns() -> u64 {
    // SAFETY: no arguments, no effect.
    unsafe { bpf_ktime_get_coarse_ns() }
}
