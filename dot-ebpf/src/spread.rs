//! Moves a packet that passes to the CPU of its connection's worker. Follows the judge where the config wants it.
//!
//! Before: a packet was judged and passes, on the CPU to which the network card delivered it. After: the CPU that its
//! hash selects takes it through the stack, and the connection's worker runs there; without a queue for that CPU this
//! one does.
//! Holds: the queues of CPUs, and the list of CPUs that the loader made them for.
//! Never: moves a packet that is not for dotd; drops a packet itself (a full queue does, and the kernel's tracepoint
//! counts that).

use aya_ebpf::{
    Global,
    bindings::xdp_action,
    macros::map,
    maps::{Array, CpuMap},
};
use dot_common::{maps::CPUS_MAX, steer};

use crate::{scratch, tail_calls::NOTHING_LEFT};

/// Indexed by the number of a CPU. Of the smallest size, unless the loader sets another.
#[map]
static CPU_QUEUES: CpuMap = CpuMap::with_max_entries(1, 0);

/// The numbers of the CPUs that take packets.
#[map]
static SPREAD_OVER: Array<u32> = Array::with_max_entries(CPUS_MAX, 0);

/// The number of those CPUs; set by the loader before the program loads.
#[unsafe(no_mangle)]
static SPREAD_CPUS: Global<u32> = Global::new(0);

/// Redirects the packet, or lets it pass here.
#[inline(always)]
pub(crate) fn spread() -> u32 {
    let Some(packet) = scratch::packet() else { return NOTHING_LEFT };
    let Some(place) = steer::spread(&packet.flow, SPREAD_CPUS.load()) else { return NOTHING_LEFT };
    let Some(cpu) = SPREAD_OVER.get(place) else { return NOTHING_LEFT };
    // The helper's result where there is no queue.
    let otherwise = u64::from(xdp_action::XDP_PASS);
    match CPU_QUEUES.redirect(*cpu, otherwise) {
        Ok(xdp_action) | Err(xdp_action) => xdp_action,
    }
}
