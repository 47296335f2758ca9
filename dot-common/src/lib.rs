//! The contract of dotd's two halves: what a packet is, what becomes of it, and the shape of every BPF map.
//!
//! The same code decides in the kernel (dot-ebpf), in unit tests, and in the differential test that
//! compares both. In the order of a packet's way:
//! [`frame`] reads octets within bounds → [`packet`] finds headers and ports, [`walk`] those behind others → [`judge`] decides, with [`knowledge`],
//! [`settings`], [`flow`] and [`rate`] as its only knowledge → [`verdict`] names the outcome → [`counters`] says
//! which counter that is. Aside: [`prefix`] (who counts as one client), [`ban`] (who gets nothing for a while), [`client_cache`] (whom a CPU need not ask about
//! again), [`local`] (which destinations are this machine's), [`charge`] (what a client cost),
//! [`truncation`] (how a query becomes its own answer), [`steer`] and [`worker_status`] (which worker gets a connection), [`tail_calls`]
//! (what may follow the judge), [`notice`] (what is said of a refusal), [`maps`]
//! (names and sizes).
//!
//! Never: allocates, panics, reads a clock, holds `unsafe` beyond the Pod impls of `pod`.

#![no_std]

pub mod ban;
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
pub mod notice;
pub mod packet;
#[cfg(feature = "user")]
mod pod;
pub mod prefix;
pub mod proof;
pub mod rate;
pub mod settings;
pub mod steer;
pub mod tail_calls;
pub mod truncation;
pub mod verdict;
pub mod walk;
pub mod worker_status;
