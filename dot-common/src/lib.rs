//! The contract between dotd's two halves: how a packet is read and judged, and the shape of every BPF map.
//!
//! The same code decides in the kernel (dot-ebpf), in unit tests, and in the differential test that compares both. In
//! the order in which a packet passes them: [`frame`] reads octets within bounds → [`packet`] finds headers and ports,
//! [`walk`] finds those behind tags and extension headers, [`others`] says early what is another service's → [`judge`] decides, from [`knowledge`], [`settings`],
//! [`flow`] and [`rate`] alone → [`verdict`] names the outcome → [`counters`] gives it a counter. Beside these:
//! [`prefix`] (which addresses count as one client), [`network`] (the same at three lengths), [`spent`] (networks that have
//! used up a budget), [`ban`] (clients that are refused for a while), [`client_cache`]
//! (each CPU's cache of clients), [`local`] (which destinations are this machine's), [`charge`] (the costs of a
//! client), [`truncation`] (how a query becomes its own answer), [`steer`] and [`worker_status`] (which worker gets a
//! connection), [`tail_calls`] (what may follow the judge), [`notice`] (what the log learns of a refusal), [`traced`] (what
//! an operator who traces clients learns), [`syn_times`] (when connections began), [`maps`] (names and sizes).
//!
//! Never: allocates, panics, reads a clock, holds `unsafe` beyond the Pod impls of `pod`.

#![no_std]

pub mod ban;
mod beginning;
pub mod charge;
pub mod client_cache;
pub mod client_lists;
pub mod counters;
pub mod flow;
pub mod frame;
pub mod judge;
pub mod knowledge;
pub mod local;
pub mod maps;
pub mod network;
pub mod notice;
pub mod others;
pub mod packet;
#[cfg(feature = "user")]
mod pod;
pub mod prefix;
pub mod proof;
pub mod rate;
pub mod settings;
pub mod spent;
pub mod steer;
pub mod syn_proxy;
pub mod syn_times;
pub mod tail_calls;
pub mod traced;
pub mod truncation;
pub mod verdict;
pub mod walk;
pub mod worker_status;
