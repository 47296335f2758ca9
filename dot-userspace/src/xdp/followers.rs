//! Loads the programs that follow the judge, each where the config wants it.
//!
//! Before: the object was loaded with the bits of what is wanted. After: the judge jumps into what sits in its slot.
//! Holds: the array of programs; when its last holder goes, the kernel empties it, and the judge ends frames by itself.
//! Never: stops the start: without a follower the judge works, and its report says why.

use aya::{
    Ebpf,
    maps::{MapData, ProgramArray},
    programs::{ProgramError, Xdp},
};
use dot_common::maps::CHAIN;

use super::{
    ProgramReport, XdpError,
    attach::{absent, program_report, refused, take},
};

/// The slots, and what sits there.
pub(super) struct Followers {
    slots: ProgramArray<MapData>,
    names: Vec<&'static str>,
}

impl Followers {
    /// Takes the array out of the object.
    pub(super) fn take(object: &mut Ebpf) -> Result<Self, XdpError> {
        let slots = ProgramArray::try_from(take(object, CHAIN)?).map_err(|error| refused(CHAIN, &error))?;
        Ok(Self { slots, names: Vec::new() })
    }

    /// Loads a program of the object and seats it.
    pub(super) fn seat(&mut self, object: &mut Ebpf, name: &'static str, slot: u32) -> Result<(), XdpError> {
        let program = object.program_mut(name).ok_or_else(|| absent(name))?;
        let program: &mut Xdp = program.try_into().map_err(|error: ProgramError| refused(name, &error))?;
        program.load().map_err(|error| refused(name, &error))?;
        let descriptor = program.fd().map_err(|error| refused(name, &error))?;
        self.slots.set(slot, descriptor, 0).map_err(|error| refused(name, &error))?;
        self.names.push(name);
        Ok(())
    }

    /// What the kernel says about each.
    pub(super) fn programs(&self, object: &Ebpf) -> Result<Vec<ProgramReport>, XdpError> {
        self.names.iter().map(|name| program_report(object, name)).collect()
    }
}
