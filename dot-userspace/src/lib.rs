//! dotd's engine: a query comes in over TLS, goes to a backend in a batch, and its response goes back.
//!
//! The nine steps of a query, in the order of ARCHITECTURE.md:
//! `worker::accept` → `tls::handshake` → `dns::framing` → `dns::query` → `dns::triage` → `cache` → `backend`
//! → `dns::respond` → `session::writer`. Steps 1 to 3 happen in the kernel (dot-ebpf).
//!
//! A library so that tests and benchmarks reach the modules; operators use the binary `dotd`.

pub mod backend;
pub mod cache;
pub mod cli;
pub mod config;
pub mod confine;
pub mod control;
pub mod disk;
pub mod dns;
pub mod events;
pub mod keeper;
pub mod ledger;
pub mod moment;
pub mod policy;
pub mod proxy;
pub mod session;
pub mod start;
mod supervise;
pub mod tls;
pub mod worker;
pub mod xdp;
