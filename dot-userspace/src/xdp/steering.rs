//! Sends each new connection to the worker of the CPU that receives its packets, or to another one if that worker's
//! entry says that it has no room.
//!
//! Before: the listeners are bound, in one SO_REUSEPORT group per address. After: the kernel selects.
//! Holds: three methods, the best first: an eBPF program (an empty slot falls back to the kernel's hash), a classic BPF
//! program (needs no right), SO_INCOMING_CPU. With all three, all reads of a connection happen on the CPU of its
//! packets; with the kernel's own hash half of them do, on two CPUs. A table gives the worker of each CPU. It is made
//! from the CPUs that this process may use, to which workers are pinned in order: these need not be 0, 1, 2 and so on,
//! and packets may arrive on others.
//! Never: stops the start: the kernel's hash always works.

use std::{
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

use aya::{
    EbpfLoader,
    maps::{Array, ReusePortSockArray},
    programs::{ProgramError, SkReuseport},
};
use dot_common::{
    maps::{self, CPUS_MAX, GLOBAL_CPUS, GLOBAL_WORKERS, PLACES, PROGRAM_STEER, WORKERS_MAX},
    steer,
};
use nix::{
    sched::{CpuSet, sched_getaffinity},
    unistd::Pid,
};

use super::{
    ProgramReport, XdpError,
    attach::{absent, program_report, refused, take},
    object::OBJECT,
    worker_status::Tables,
};
use crate::config;

/// The listeners of one address: one SO_REUSEPORT group, one socket per worker.
pub struct ListenerGroup<'a> {
    /// The address to which they are bound.
    pub address: SocketAddr,
    /// The sockets, by worker.
    pub sockets: Vec<BorrowedFd<'a>>,
}

impl AsFd for ListenerGroup<'_> {
    /// Any socket of the group can be used.
    ///
    /// # Panics
    /// When the group is empty: `start` binds at least one socket per address.
    fn as_fd(&self) -> BorrowedFd<'_> {
        *self.sockets.first().expect("a group has at least one listener")
    }
}

/// How connections find their worker.
pub(super) struct Steering {
    /// Its name in reports.
    pub(super) name: String,
    /// The reason against a better method.
    pub(super) reason: Option<String>,
    /// The program, if the method has one.
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
    let pinned = usable_cpus();
    let ebpf = match by_program(groups, &pinned, tables) {
        Ok(program) => {
            return Ok(Steering { name: "reuseport-ebpf".into(), reason: None, program: Some(program) });
        }
        Err(error) => error.to_string(),
    };
    let cbpf = match groups.iter().try_for_each(|group| by_classic_program(group, &pinned)) {
        Ok(()) => {
            return Ok(Steering { name: "reuseport-cbpf".into(), reason: Some(ebpf), program: None });
        }
        Err(error) => error.to_string(),
    };
    let reason = Some(format!("{ebpf}; classic BPF: {cbpf}"));
    Ok(match groups.iter().try_for_each(|group| by_incoming_cpu(group, &pinned)) {
        Ok(()) => Steering { name: "incoming-cpu".into(), reason, program: None },
        Err(_) => Steering { name: "kernel-hash".into(), reason, program: None },
    })
}

fn hash(reason: &str) -> Steering {
    Steering { name: "kernel-hash".into(), reason: Some(reason.into()), program: None }
}

/// One instance of the program, with its own map of listeners, for each group.
fn by_program(
    groups: &[ListenerGroup<'_>],
    pinned: &[u32],
    tables: &mut Tables,
) -> Result<ProgramReport, XdpError> {
    let cpus = u32::try_from(pinned.len()).unwrap_or(1).max(1);
    let mut report = None;
    for group in groups.iter().filter(|group| !group.sockets.is_empty()) {
        let workers = u32::try_from(group.sockets.len()).unwrap_or(u32::MAX).min(WORKERS_MAX);
        let mut object = EbpfLoader::new()
            .override_global(GLOBAL_WORKERS, &workers, true)
            .override_global(GLOBAL_CPUS, &cpus, true)
            .map_max_entries(maps::SOCKETS, workers)
            .map_max_entries(maps::WORKERS, tables.workers())
            // This map is not used here: it has the smallest size, and ends with `object`.
            .map_max_entries(maps::FLOWS4, 1)
            .map_max_entries(maps::FLOWS6, 1)
            .map_max_entries(maps::BANS, 1)
            .map_max_entries(maps::SPENT, 1)
            .map_max_entries(maps::PROVEN, 1)
            .map_max_entries(maps::MEMO, 1)
            .map_max_entries(maps::DESTINATIONS, 1)
            .map_max_entries(maps::SYN_TIMES, 1)
            .load(OBJECT)
            .map_err(|error| refused("the BPF object", &error))?;
        let sockets = take(&mut object, maps::SOCKETS)?;
        let places = take(&mut object, PLACES)?;
        let mut places = Array::<_, u32>::try_from(places).map_err(|error| refused(PLACES, &error))?;
        for cpu in 0..CPUS_MAX {
            places.set(cpu, steer::place(cpu, pinned), 0).map_err(|error| refused(PLACES, &error))?;
        }
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

const LOAD_WORD_ABSOLUTE: u16 = 0x20;
const JUMP_IF_EQUAL: u16 = 0x15;
const MODULO_CONSTANT: u16 = 0x94;
const RETURN_CONSTANT: u16 = 0x06;
const RETURN_ACCUMULATOR: u16 = 0x16;

/// The table in classic BPF, which has no tables: a comparison for each CPU whose worker is not `cpu % workers`, then
/// that value.
fn classic_steps(workers: u32, pinned: &[u32]) -> Vec<libc::sock_filter> {
    /// SKF_AD_OFF + SKF_AD_CPU: the "offset" at which the kernel keeps the CPU's number.
    const CPU: u32 = 0xffff_f000 + 36;
    let step = |code, jf, k| libc::sock_filter { code, jt: 0, jf, k };
    let mut steps = vec![step(LOAD_WORD_ABSOLUTE, 0, CPU)];
    for cpu in 0..CPUS_MAX {
        let worker = steer::place(cpu, pinned) % workers;
        if worker != cpu % workers {
            steps.extend([step(JUMP_IF_EQUAL, 1, cpu), step(RETURN_CONSTANT, 0, worker)]);
        }
    }
    steps.extend([step(MODULO_CONSTANT, 0, workers), step(RETURN_ACCUMULATOR, 0, 0)]);
    steps
}

/// The CPUs that this process may use, in the order in which workers are pinned to them.
fn usable_cpus() -> Vec<u32> {
    let set = sched_getaffinity(Pid::from_raw(0)).unwrap_or_else(|_| CpuSet::new());
    let usable = (0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false));
    usable.filter_map(|cpu| u32::try_from(cpu).ok()).filter(|cpu| *cpu < CPUS_MAX).collect()
}

/// `return table[cpu]`, as classic BPF.
fn by_classic_program(group: &ListenerGroup<'_>, pinned: &[u32]) -> std::io::Result<()> {
    let Ok(workers) = u32::try_from(group.sockets.len()) else { return Ok(()) };
    if workers == 0 {
        return Ok(());
    }
    let mut steps = classic_steps(workers, pinned);
    let Ok(len) = u16::try_from(steps.len()) else { return Err(std::io::ErrorKind::InvalidInput.into()) };
    let program = libc::sock_fprog { len, filter: steps.as_mut_ptr() };
    let size = size_of::<libc::sock_fprog>() as libc::socklen_t;
    // SAFETY: the option takes a sock_fprog of that size; it and its steps live through the call.
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
fn by_incoming_cpu(group: &ListenerGroup<'_>, pinned: &[u32]) -> std::io::Result<()> {
    for (cpu, socket) in pinned.iter().cycle().zip(&group.sockets) {
        socket2::SockRef::from(socket).set_cpu_affinity(*cpu as usize)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The result of dotd's program on a CPU.
    fn run(steps: &[libc::sock_filter], cpu: u32) -> u32 {
        let (mut accumulator, mut at) = (0, 0);
        loop {
            let step = steps[at];
            at += 1;
            match step.code {
                LOAD_WORD_ABSOLUTE => accumulator = cpu,
                JUMP_IF_EQUAL if accumulator == step.k => at += usize::from(step.jt),
                JUMP_IF_EQUAL => at += usize::from(step.jf),
                MODULO_CONSTANT => accumulator %= step.k,
                RETURN_CONSTANT => return step.k,
                RETURN_ACCUMULATOR => return accumulator,
                code => panic!("{code:#x} is no step of ours"),
            }
        }
    }

    /// Goal: the classic program gives each CPU the worker that is pinned to it, whatever the mask, is within the
    /// kernel's limit, and is short where CPUs are 0, 1, 2. Method: runs it for all CPUs.
    #[test]
    fn the_classic_program_follows_the_mask() {
        for pinned in [&[0, 2, 4, 6][..], &[3], &[512, 1000], &[1, 0], &[0, 1, 2, 3]] {
            let workers = u32::try_from(pinned.len()).unwrap();
            let steps = classic_steps(workers, pinned);
            assert!(steps.len() <= 4096, "BPF_MAXINSNS");
            for (worker, cpu) in (0..).zip(pinned) {
                assert_eq!(run(&steps, *cpu), worker, "{pinned:?}: CPU {cpu}");
            }
            assert!((0..CPUS_MAX + 9).all(|cpu| run(&steps, cpu) < workers));
        }
        assert_eq!(classic_steps(4, &[0, 1, 2, 3]).len(), 3);
    }
}
