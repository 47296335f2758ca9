//! A load of DNS-over-TLS queries, closed loop or open, in the order the octets flow.
//!
//! [`options`] say what to send → [`queries`] encode it → [`client`] opens sessions → [`connection`] keeps
//! so many queries in flight on each, or sends what [`pacer`] lets fall due, or what a [`population`] would → [`threads`] spread connections over
//! cores, with a [`progress`] bar → [`tally`] counts → [`report`] prints, with the CPU that [`cpu`] and the system calls that [`calls`] read.

pub mod calls;
pub mod client;
pub mod connection;
pub mod cpu;
pub mod options;
pub mod pacer;
pub mod population;
pub mod progress;
pub mod queries;
pub mod report;
pub mod tally;
pub mod threads;
