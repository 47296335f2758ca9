//! Gives a new connection to the listener of the worker on this CPU, or of another worker if that one has no room.
//!
//! Before: the stack has a SYN for a SO_REUSEPORT group. After: that worker accepts.
//! Holds: one group: the loader loads this program once for each listen address, with its own SOCKETS.
//! Never: refuses: if a slot is empty, the kernel's hash decides.

use aya_ebpf::{Global, helpers::bpf_get_smp_processor_id, programs::SkReuseportContext};
use dot_common::{steer::worker, worker_status::choose};

use crate::maps::{self, SOCKETS, WORKER_COUNT};

/// CPUs that workers are pinned to; set by the loader before the program loads.
#[unsafe(no_mangle)]
static CPUS: Global<u32> = Global::new(1);

/// Selects the socket.
#[inline(always)]
pub(crate) fn select(context: &SkReuseportContext) {
    // SAFETY: no arguments, no effect.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let workers = WORKER_COUNT.load();
    let place = maps::place(cpu).unwrap_or(cpu);
    let own = worker(place, context.hash(), CPUS.load(), workers);
    let worker = choose(own, workers, maps::now_ns, maps::worker_status);
    let _ = SOCKETS.select_reuseport(context, worker);
}
