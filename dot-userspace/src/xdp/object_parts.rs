//! The parts of the loaded object: its programs as the kernel knows them, and its maps.
//!
//! Before: `kernel` loaded the object. After: each module takes its maps out of it. Never: loads or attaches.

use aya::{Ebpf, maps::Map};

use super::{ProgramReport, XdpError, error::innermost};

/// The kernel's data about a loaded program.
pub(super) fn program_report(object: &Ebpf, name: &str) -> Result<ProgramReport, XdpError> {
    let program = object.program(name).ok_or_else(|| absent(name))?;
    let info = program.info().map_err(|error| refused(name, &error))?;
    Ok(ProgramReport {
        name: name.to_owned(),
        id: info.id(),
        verified_instructions: info.verified_instruction_count().unwrap_or(0),
        translated_octets: info.size_translated().unwrap_or(0),
    })
}

/// Takes a map out of the object.
pub(super) fn take(object: &mut Ebpf, name: &str) -> Result<Map, XdpError> {
    object.take_map(name).ok_or_else(|| absent(name))
}

pub(super) fn absent(name: &str) -> XdpError {
    XdpError::Load { what: name.into(), reason: "it is not in the object; build again".into() }
}

pub(super) fn refused(what: &str, error: &dyn std::error::Error) -> XdpError {
    XdpError::Load { what: what.into(), reason: innermost(error) }
}
