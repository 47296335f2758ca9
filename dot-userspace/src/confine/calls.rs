//! The system calls of an engine: its own, and those of the runtime, the allocator, the C library and a panic.
//!
//! Before: one thread. After: seccomp refuses every other call with ENOSYS; a call that only an intruder would make
//! ends the process.
//! Holds: the list, found by running every test under strace and by reading the code of rare paths: panics, renewals of
//! the self-signed certificate, kernels and C libraries of other versions.
//! Never: kills for a call that a later C library may begin to use: ENOSYS makes it use its older call, while some
//! libraries report EPERM as an error.
//!
//! Source: seccomp(2), syscalls(2).

use std::{collections::BTreeMap, process};

use seccompiler::{
    BackendError, BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch, apply_filter,
};

/// Calls that are allowed with any argument.
const PLAIN: &[i64] = &[
    // Sockets: sessions, backends, the control socket.
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_listen,
    libc::SYS_recvfrom,
    libc::SYS_recvmmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendmmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    libc::SYS_socketpair,
    // Reads and writes.
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_lseek,
    libc::SYS_pipe2,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
    // The runtime: events, timers, changes of folders.
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_inotify_add_watch,
    libc::SYS_inotify_init1,
    libc::SYS_inotify_rm_watch,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_gettime,
    libc::SYS_timerfd_settime,
    // Files of its own (Landlock decides which): the self-signed certificate is renewed, the control socket removed.
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_fdatasync,
    libc::SYS_flock,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_linkat,
    libc::SYS_mkdirat,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_readlinkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_statfs,
    libc::SYS_statx,
    libc::SYS_umask,
    libc::SYS_unlinkat,
    libc::SYS_utimensat,
    // Memory.
    libc::SYS_brk,
    libc::SYS_get_mempolicy,
    libc::SYS_madvise,
    libc::SYS_mbind,
    libc::SYS_membarrier,
    libc::SYS_mincore,
    libc::SYS_mlock,
    libc::SYS_mremap,
    libc::SYS_msync,
    libc::SYS_munlock,
    libc::SYS_munmap,
    // Threads and signals.
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_get_robust_list,
    libc::SYS_getcpu,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_gettid,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigpending,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_sigaltstack,
    // Time and random numbers.
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_getrandom,
    libc::SYS_gettimeofday,
    libc::SYS_nanosleep,
    // Facts about the process and the machine.
    libc::SYS_capget,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getgroups,
    libc::SYS_getresgid,
    libc::SYS_getresuid,
    libc::SYS_getrusage,
    libc::SYS_getuid,
    libc::SYS_sysinfo,
    libc::SYS_times,
    libc::SYS_uname,
];

/// Older names of some of these, which x86-64 alone still has.
#[cfg(target_arch = "x86_64")]
const OLDER: &[i64] = &[
    libc::SYS_access,
    libc::SYS_arch_prctl,
    libc::SYS_chmod,
    libc::SYS_dup2,
    libc::SYS_epoll_create,
    libc::SYS_epoll_wait,
    libc::SYS_getdents,
    libc::SYS_getrlimit,
    libc::SYS_link,
    libc::SYS_lstat,
    libc::SYS_mkdir,
    libc::SYS_open,
    libc::SYS_pipe,
    libc::SYS_poll,
    libc::SYS_readlink,
    libc::SYS_rename,
    libc::SYS_select,
    libc::SYS_stat,
    libc::SYS_time,
    libc::SYS_unlink,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[i64] = &[];

/// Calls of an intruder, which no version of the used libraries makes: they end the process at once.
const DEADLY: &[i64] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_finit_module,
    libc::SYS_init_module,
    libc::SYS_kexec_load,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
];

/// Refuses calls that are not listed.
pub(super) fn enforce() -> Result<(), Error> {
    let deadly = DEADLY.iter().map(|call| (*call, Vec::new())).collect();
    apply_filter(&program(deadly, SeccompAction::Allow, SeccompAction::KillProcess)?)?;
    apply_filter(&program(allowed()?, SeccompAction::Errno(libc::ENOSYS as u32), SeccompAction::Allow)?)
}

/// Makes the kernel log calls that are not listed, and allow them.
pub(super) fn log() -> Result<(), Error> {
    apply_filter(&program(allowed()?, SeccompAction::Log, SeccompAction::Allow)?)
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

fn program(rules: Rules, others: SeccompAction, these: SeccompAction) -> Result<BpfProgram, Error> {
    let machine = TargetArch::try_from(std::env::consts::ARCH)?;
    Ok(SeccompFilter::new(rules, others, these, machine)?.try_into()?)
}

fn allowed() -> Result<Rules, BackendError> {
    let mut rules: Rules = PLAIN.iter().chain(OLDER).map(|call| (*call, Vec::new())).collect();
    for (call, place, values) in with_argument() {
        let rule = |value: u64| SeccompRule::new(vec![is(place, value)?]);
        rules.insert(call, values.into_iter().map(rule).collect::<Result<_, _>>()?);
    }
    // A thread, and no process. clone3 passes its flags in memory: ENOSYS makes the C library use this call.
    let thread = libc::CLONE_THREAD as u64;
    rules.insert(libc::SYS_clone, vec![SeccompRule::new(vec![has(0, thread, thread)?])?]);
    // No memory becomes executable; only earlier mappings are.
    let exec = libc::PROT_EXEC as u64;
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        rules.insert(call, vec![SeccompRule::new(vec![has(2, exec, 0)?])?]);
    }
    // Streams and datagrams of IP and of this machine; and of netlink the family for interfaces and addresses.
    let kinds = [libc::SOCK_STREAM, libc::SOCK_DGRAM];
    let of_ip = [libc::AF_INET, libc::AF_INET6, libc::AF_UNIX];
    let mut sockets = Vec::new();
    for (family, kind) in of_ip.into_iter().flat_map(|family| kinds.map(|kind| (family, kind))) {
        sockets.push(SeccompRule::new(vec![is(0, family as u64)?, has(1, SOCKET_KIND, kind as u64)?])?);
    }
    let netlink = vec![is(0, libc::AF_NETLINK as u64)?, is(2, libc::NETLINK_ROUTE as u64)?];
    sockets.push(SeccompRule::new(netlink)?);
    rules.insert(libc::SYS_socket, sockets);
    Ok(rules)
}

/// The part of a socket's type without SOCK_NONBLOCK and SOCK_CLOEXEC.
const SOCKET_KIND: u64 = 0xf;

/// Calls whose argument at a place must be one of these.
fn with_argument() -> [(i64, u8, Vec<u64>); 7] {
    let numbers = |numbers: &[i32]| numbers.iter().map(|number| *number as u64).collect::<Vec<_>>();
    let requests = [libc::FIONBIO, libc::FIONREAD, libc::FIOCLEX, libc::TIOCOUTQ, libc::TCGETS];
    let options = [
        libc::PR_CAPBSET_READ,
        libc::PR_GET_NAME,
        libc::PR_SET_NAME,
        libc::PR_SET_TIMERSLACK,
        libc::PR_SET_VMA,
    ];
    let commands = [
        libc::F_DUPFD,
        libc::F_DUPFD_CLOEXEC,
        libc::F_GETFD,
        libc::F_SETFD,
        libc::F_GETFL,
        libc::F_SETFL,
        libc::F_GETLK,
        libc::F_SETLK,
        libc::F_OFD_SETLK,
    ];
    [
        (libc::SYS_ioctl, 1, requests.map(|request| request & 0xffff_ffff).to_vec()),
        (libc::SYS_prctl, 0, numbers(&options)),
        (libc::SYS_fcntl, 1, numbers(&commands)),
        // Its own limits, and signals to its own threads: how the C library aborts.
        (libc::SYS_prlimit64, 0, vec![0]),
        (libc::SYS_tgkill, 0, vec![u64::from(process::id())]),
        // Its own CPUs: while the keeper waits, its effective user is the engine's, who could choose its CPUs too.
        (libc::SYS_sched_setaffinity, 0, vec![0]),
        (libc::SYS_bpf, 0, BPF_COMMANDS.to_vec()),
    ]
}

/// The commands of bpf(2) that read and write open maps: MAP_LOOKUP_ELEM, MAP_UPDATE_ELEM, MAP_DELETE_ELEM,
/// MAP_GET_NEXT_KEY, OBJ_GET_INFO_BY_FD, MAP_LOOKUP_AND_DELETE_ELEM, and the four batch commands. None makes, loads,
/// attaches, pins or finds anything.
const BPF_COMMANDS: [u64; 10] = [1, 2, 3, 4, 15, 21, 24, 25, 26, 27];

fn is(place: u8, value: u64) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(place, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
}

fn has(place: u8, mask: u64, value: u64) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(place, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(mask), value)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a kernel accepts the filters, no call is in two lists, and no call that ends the process is allowed.
    /// Method: both programs, and the lists side by side.
    #[test]
    fn the_lists_agree_and_make_filters() {
        let allowed = allowed().unwrap();
        assert!(DEADLY.iter().all(|call| !allowed.contains_key(call)));
        let special = with_argument().map(|(call, ..)| call);
        let special =
            special.iter().chain(&[libc::SYS_clone, libc::SYS_mmap, libc::SYS_mprotect, libc::SYS_socket]);
        assert_eq!(allowed.len(), PLAIN.len() + OLDER.len() + special.count(), "a call stands in two lists");
        let filter = program(allowed, SeccompAction::Log, SeccompAction::Allow).unwrap();
        assert!(filter.len() <= 4096, "BPF_MAXINSNS");
    }
}
