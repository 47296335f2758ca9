//! Sends each new connection to the worker of the CPU that takes its packets, or past it where its line says that it has
//! no room.
//!
//! Before: the listeners are bound, in one SO_REUSEPORT group per address. After: the kernel selects.
//! Holds: three ways, the best first: an eBPF program (an empty slot falls back to the kernel's hash), a
//! classic BPF program (needs no right), SO_INCOMING_CPU. All three give all reads of a connection to the
//! CPU of its packets; the kernel's own hash gives half of them, on two CPUs.
//! Never: stops the start: the kernel's hash always works.

use std::os::fd::{AsFd, AsRawFd};

use aya::{
    EbpfLoader,
    maps::ReusePortSockArray,
    programs::{ProgramError, SkReuseport},
    util::online_cpus,
};
use dot_common::maps::{self, GLOBAL_CPUS, GLOBAL_WORKERS, PROGRAM_STEER, WORKERS_MAX};

use super::{
    ListenerGroup, ProgramReport, XdpError,
    attach::{absent, program_report, refused, take},
    lines::Tables,
    object::OBJECT,
};
use crate::config;

/// How connections find their worker.
pub(super) struct Steering {
    /// Its name in reports.
    pub(super) name: String,
    /// Why not a better way.
    pub(super) reason: Option<String>,
    /// The program, if there is one.
    pub(super) program: Option<ProgramReport>,
}

/// Steers every group.
pub(super) fn steer(
    config: config::Steering,
    groups: &[ListenerGroup<'_>],
    tables: &mut Tables,
) -> Result<Steering, XdpError> {
    match config {
        config::Steering::Off => return Ok(hash("xdp.steering is \"off\"")),
        config::Steering::Auto | config::Steering::Reuseport | config::Steering::Cpumap => {}
    }
    if groups.iter().all(|group| group.sockets.len() < 2) {
        return Ok(hash("one worker"));
    }
    let ebpf = match by_program(groups, tables) {
        Ok(program) => {
            return Ok(Steering { name: "reuseport-ebpf".into(), reason: None, program: Some(program) });
        }
        Err(error) => error.to_string(),
    };
    let cbpf = match groups.iter().try_for_each(by_classic_program) {
        Ok(()) => {
            return Ok(Steering { name: "reuseport-cbpf".into(), reason: Some(ebpf), program: None });
        }
        Err(error) => error.to_string(),
    };
    let reason = Some(format!("{ebpf}; classic BPF: {cbpf}"));
    Ok(match groups.iter().try_for_each(by_incoming_cpu) {
        Ok(()) => Steering { name: "incoming-cpu".into(), reason, program: None },
        Err(_) => Steering { name: "kernel-hash".into(), reason, program: None },
    })
}

fn hash(reason: &str) -> Steering {
    Steering { name: "kernel-hash".into(), reason: Some(reason.into()), program: None }
}

/// One instance of the program, with its own map of listeners, for each group.
fn by_program(groups: &[ListenerGroup<'_>], tables: &mut Tables) -> Result<ProgramReport, XdpError> {
    let cpus = online_cpus().map_or(1, |cpus| u32::try_from(cpus.len()).unwrap_or(1));
    let mut report = None;
    for group in groups.iter().filter(|group| !group.sockets.is_empty()) {
        let workers = u32::try_from(group.sockets.len()).unwrap_or(u32::MAX).min(WORKERS_MAX);
        let mut object = EbpfLoader::new()
            .override_global(GLOBAL_WORKERS, &workers, true)
            .override_global(GLOBAL_CPUS, &cpus, true)
            .map_max_entries(maps::SOCKETS, workers)
            .map_max_entries(maps::WORKERS, tables.workers())
            // Not ours here: as small as it can be, and gone with `object`.
            .map_max_entries(maps::FLOWS4, 1)
            .map_max_entries(maps::FLOWS6, 1)
            .map_max_entries(maps::BANS, 1)
            .map_max_entries(maps::SPENT, 1)
            .map_max_entries(maps::MEMO, 1)
            .load(OBJECT)
            .map_err(|error| refused("the BPF object", &error))?;
        let sockets = take(&mut object, maps::SOCKETS)?;
        let program = object.program_mut(PROGRAM_STEER).ok_or_else(|| absent(PROGRAM_STEER))?;
        let program: &mut SkReuseport =
            program.try_into().map_err(|error: ProgramError| refused(PROGRAM_STEER, &error))?;
        program.load().map_err(|error| refused(PROGRAM_STEER, &error))?;
        let mut slots =
            ReusePortSockArray::try_from(sockets).map_err(|error| refused(maps::SOCKETS, &error))?;
        for (worker, socket) in (0..workers).zip(&group.sockets) {
            slots.set(worker, socket, 0).map_err(|error| refused(maps::SOCKETS, &error))?;
        }
        // From here on the group holds the program, and the program its map.
        program.attach(group).map_err(|error| refused(PROGRAM_STEER, &error))?;
        tables.adopt(&mut object)?;
        report = Some(program_report(&object, PROGRAM_STEER)?);
    }
    report.ok_or_else(|| absent(PROGRAM_STEER))
}

/// `return cpu % workers`, as classic BPF.
fn by_classic_program(group: &ListenerGroup<'_>) -> std::io::Result<()> {
    const LOAD_WORD_ABSOLUTE: u16 = 0x20;
    const MODULO_CONSTANT: u16 = 0x94;
    const RETURN_ACCUMULATOR: u16 = 0x16;
    /// SKF_AD_OFF + SKF_AD_CPU: the "offset" at which the kernel keeps the CPU's number.
    const CPU: u32 = 0xffff_f000 + 36;
    let Ok(workers) = u32::try_from(group.sockets.len()) else { return Ok(()) };
    if workers == 0 {
        return Ok(());
    }
    let step = |code, k| libc::sock_filter { code, jt: 0, jf: 0, k };
    let mut steps =
        [step(LOAD_WORD_ABSOLUTE, CPU), step(MODULO_CONSTANT, workers), step(RETURN_ACCUMULATOR, 0)];
    let program = libc::sock_fprog { len: 3, filter: steps.as_mut_ptr() };
    let size = size_of::<libc::sock_fprog>() as libc::socklen_t;
    // SAFETY: the option takes a sock_fprog of that size; it and its three steps live through the call.
    let failed = unsafe {
        libc::setsockopt(
            group.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const program).cast(),
            size,
        )
    };
    if failed == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// Each listener prefers its own CPU.
fn by_incoming_cpu(group: &ListenerGroup<'_>) -> std::io::Result<()> {
    for (cpu, socket) in group.sockets.iter().enumerate() {
        socket2::SockRef::from(socket).set_cpu_affinity(cpu)?;
    }
    Ok(())
}
