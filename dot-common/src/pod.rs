//! Declares to the loader's crate that the map types are plain octets.
//!
//! Only with the feature `user`: the BPF build needs no such declaration.
//!
//! Before: types of fixed shape, their sizes asserted. After: `xdp` reads and writes them in maps.
//! Never: declares it for a type with padding, a bool or a pointer.

use aya::Pod;

use crate::{
    ban::Ban,
    client_cache::CachedClient,
    flow::{Flow, FlowKey},
    frame::Located,
    network::Network,
    proof::Proof,
    settings::Settings,
    spent::Spent,
    traced::Traced,
    worker_status::WorkerStatus,
};

// SAFETY: repr(C) integers, 40 octets asserted, so no padding; every bit pattern is a value.
unsafe impl Pod for FlowKey {}
// SAFETY: repr(C) integers, 16 octets asserted, so no padding; every bit pattern is a value.
unsafe impl Pod for Flow {}
// SAFETY: repr(C) integers, 64 octets asserted, so no padding; every bit pattern is a value.
unsafe impl Pod for Settings {}
// SAFETY: repr(C) integers, 320 octets asserted, so no padding; every bit pattern is a value.
unsafe impl Pod for Traced {}
// SAFETY: repr(C) integers, 24 octets asserted, so no padding; every bit pattern is a value.
unsafe impl Pod for Ban {}
// SAFETY: five u32; every bit pattern is a value.
unsafe impl Pod for Located {}
// SAFETY: one u64; every bit pattern is a value.
unsafe impl Pod for Proof {}
// SAFETY: repr(C) integers, 64 octets asserted, so no padding; every bit pattern is a value.
unsafe impl Pod for CachedClient {}
// SAFETY: repr(C) integers, 16 octets asserted, so no padding; every bit pattern is a value.
unsafe impl Pod for Network {}
// SAFETY: repr(C) integers, 16 octets asserted, so no padding; every bit pattern is a value.
unsafe impl Pod for Spent {}
// SAFETY: repr(C) integers, 64 octets asserted, so no padding; every bit pattern is a value.
unsafe impl Pod for WorkerStatus {}
