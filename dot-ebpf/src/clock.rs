//! The kernel's clocks.
//!
//! Before: a program judges a packet. After: it knows the time. Never: reads the precise clock where a tick is enough.

use aya_ebpf::helpers::{bpf_jiffies64, bpf_ktime_get_coarse_ns, bpf_ktime_get_ns};

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

/// The tick of the kernel's clock, on which the coarse time is based, in one load.
#[inline(always)]
pub(crate) fn tick() -> u64 {
    // SAFETY: no arguments, no effect.
    unsafe { bpf_jiffies64() }
}
