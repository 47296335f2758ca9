//! A load of DNS-over-TLS queries, closed loop or open, in the order the octets flow.
//!
//! [`options`] say what to send → [`queries`] encode it → [`client`] opens sessions → [`connection`] keeps
//! so many queries in flight on each, or sends what [`pacer`] lets fall due → [`threads`] spread connections over cores → [`tally`] counts →
//! [`report`] prints, with the CPU that [`cpu`] read.

pub mod client;
pub mod connection;
pub mod cpu;
pub mod options;
pub mod pacer;
pub mod queries;
pub mod report;
pub mod tally;
pub mod threads;
