//! Room `xdp`: being built.

mod report;

pub use report::{InterfaceReport, PacketCount, ProgramReport, Report};
