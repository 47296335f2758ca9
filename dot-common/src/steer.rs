//! Which worker's listener gets a new connection.
//!
//! Before: the stack has a SYN for a group of listeners. After: dot-ebpf selects the socket of that worker;
//! an empty slot leaves the choice to the kernel's own hash.
//! Holds: the rule, for any number of workers and CPUs.

/// The worker for a connection whose packets arrive on `cpu`.
///
/// As many workers as CPUs, or fewer: the CPU's own, or the one that shares it. More: those whose number
/// falls on this CPU share by `hash`, so that none is idle.
#[must_use]
#[inline(always)]
pub const fn worker(cpu: u32, hash: u32, cpus: u32, workers: u32) -> u32 {
    if workers == 0 || cpus == 0 {
        return 0;
    }
    if workers <= cpus {
        return cpu % workers;
    }
    let cpu = cpu % cpus;
    let lanes = (workers - cpu).div_ceil(cpus);
    cpu + cpus * (hash % lanes)
}
