//! Loads the programs that follow the judge, each only if the config wants it.
//!
//! Before: the config. After: the object is loaded with the constants of the wanted programs, and the judge jumps to
//! the program in a slot.
//! Holds: the array of programs; when its last holder is gone, the kernel empties it, and the judge finishes frames
//! itself.
//! Never: stops the start: the judge works without a follower, and the report says why it is missing.

use aya::{
    Ebpf, EbpfLoader,
    maps::{MapData, ProgramArray},
    programs::{ProgramError, Xdp},
};
use dot_common::{
    maps::{
        CHAIN, CPU_QUEUES, GLOBAL_FOLLOW, GLOBAL_SPREAD_CPUS, GLOBALS_FLOOD, GLOBALS_PROXY_SECRET,
        PROGRAM_COOKIE, PROGRAM_NOTICE, PROGRAM_SPREAD,
    },
    tail_calls,
};

use super::{
    ProgramReport, XdpError,
    cookies::Cookies,
    object_parts::{absent, program_report, refused, take},
    spread::Spread,
};
use crate::config;

/// The wanted programs, and the loaded ones.
pub(super) struct TailCalls {
    slots: Option<ProgramArray<MapData>>,
    names: Vec<&'static str>,
    pub(super) cookies: Cookies,
    pub(super) spread: Spread,
}

/// The constants of the programs.
pub(super) struct Constants {
    follow: u32,
    flood: [u64; 2],
    secret: [u64; 2],
    cpus: u32,
    queues: u32,
}

impl Constants {
    /// Gives them to the loader.
    pub(super) fn give_to<'a>(&'a self, loader: &mut EbpfLoader<'a>) {
        loader.override_global(GLOBAL_FOLLOW, &self.follow, true);
        for (name, nanoseconds) in GLOBALS_FLOOD.iter().zip(&self.flood) {
            loader.override_global(name, nanoseconds, true);
        }
        for (name, word) in GLOBALS_PROXY_SECRET.iter().zip(&self.secret) {
            loader.override_global(name, word, true);
        }
        loader.override_global(GLOBAL_SPREAD_CPUS, &self.cpus, true);
        loader.map_max_entries(CPU_QUEUES, self.queues);
    }
}

impl TailCalls {
    /// The programs that the config wants.
    pub(super) fn of(config: &config::Xdp) -> Self {
        let (cookies, spread) = (Cookies::of(config), Spread::of(config));
        Self { slots: None, names: Vec::new(), cookies, spread }
    }

    /// The constants for these programs.
    pub(super) fn constants(&self) -> Constants {
        let wanted = [
            (tail_calls::NOTICE, true),
            (tail_calls::COOKIE, self.cookies.are_wanted()),
            (tail_calls::SPREAD, self.spread.is_wanted()),
        ];
        let wanted = wanted.iter().filter(|(_, is_wanted)| *is_wanted);
        let follow = wanted.fold(0, |bits, (slot, _)| bits | tail_calls::bit(*slot));
        let flood = self.cookies.rate();
        Constants {
            follow,
            flood: [flood.period_ns, flood.tolerance_ns],
            secret: self.cookies.secret(),
            cpus: self.spread.count(),
            queues: self.spread.entries(),
        }
    }

    /// Loads the wanted programs. One that cannot be loaded is left out and reported.
    pub(super) fn fill_slots(&mut self, object: &mut Ebpf) -> Result<(), XdpError> {
        let slots = ProgramArray::try_from(take(object, CHAIN)?).map_err(|error| refused(CHAIN, &error))?;
        self.slots = Some(slots);
        if let Err(error) = self.fill_slot(object, PROGRAM_NOTICE, tail_calls::NOTICE) {
            tracing::warn!("xdp: refused clients are counted, and not announced: {error}");
        }
        if self.cookies.are_wanted()
            && let Err(error) = self.fill_slot(object, PROGRAM_COOKIE, tail_calls::COOKIE)
        {
            tracing::warn!("xdp: no SYN cookies: {error}");
            self.cookies.refused(error.to_string());
        }
        if self.spread.is_wanted() {
            let made = self.spread.make(object);
            if let Err(error) = made.and_then(|()| self.fill_slot(object, PROGRAM_SPREAD, tail_calls::SPREAD))
            {
                tracing::warn!("xdp: packets stay on their CPU: {error}");
                self.spread.refused(error.to_string());
            }
        }
        Ok(())
    }

    /// Loads a program of the object and puts it into its slot.
    fn fill_slot(&mut self, object: &mut Ebpf, name: &'static str, slot: u32) -> Result<(), XdpError> {
        let slots = self.slots.as_mut().ok_or_else(|| absent(CHAIN))?;
        let program = object.program_mut(name).ok_or_else(|| absent(name))?;
        let program: &mut Xdp = program.try_into().map_err(|error: ProgramError| refused(name, &error))?;
        program.load().map_err(|error| refused(name, &error))?;
        let descriptor = program.fd().map_err(|error| refused(name, &error))?;
        slots.set(slot, descriptor, 0).map_err(|error| refused(name, &error))?;
        self.names.push(name);
        Ok(())
    }

    /// The kernel's data about each.
    pub(super) fn programs(&self, object: &Ebpf) -> Result<Vec<ProgramReport>, XdpError> {
        self.names.iter().map(|name| program_report(object, name)).collect()
    }
}
