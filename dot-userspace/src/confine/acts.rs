//! Tries forbidden acts on the calling thread: only for tests of debug builds.
//!
//! Before: the name of an act. After: 0 if the kernel did it, otherwise the error's number. Some acts end the
//! process.
//! Never: is compiled into a release.

use std::ffi::CStr;

use nix::errno::Errno;

/// An act, and the kernel's result.
type Act = (&'static str, fn() -> libc::c_long);

/// Every act that is refused with an error.
pub const REFUSED: &[Act] = &[
    ("open a file of root's", || open(c"/etc/shadow", libc::O_RDONLY)),
    ("open the config", || open(c"/etc/hostname", libc::O_RDONLY)),
    ("make a file in /tmp", || open(c"/tmp/dotd-act", libc::O_CREAT | libc::O_WRONLY)),
    ("list the root", || open(c"/", libc::O_RDONLY | libc::O_DIRECTORY)),
    ("listen by TCP", listen),
    ("a packet socket", || call(libc::SYS_socket, [libc::AF_PACKET.into(), libc::SOCK_RAW.into(), 0, 0])),
    ("a raw socket", || call(libc::SYS_socket, [libc::AF_INET.into(), libc::SOCK_RAW.into(), 17, 0])),
    ("netfilter", || call(libc::SYS_socket, [libc::AF_NETLINK.into(), libc::SOCK_RAW.into(), 12, 0])),
    // With a flag that the kernel accepts only for a thread: if the call is not refused, no process is made either.
    ("another process", || call(libc::SYS_clone, [(libc::SIGCHLD | libc::CLONE_SIGHAND).into(), 0, 0, 0])),
    ("another process, newer", || call(libc::SYS_clone3, [0; 4])),
    ("code in new memory", || call(libc::SYS_mmap, [0, 4096, 5, 0x22])),
    ("code in old memory", || call(libc::SYS_mprotect, [0, 0, 5, 0])),
    ("load a BPF program", || call(libc::SYS_bpf, [5, 0, 0, 0])),
    ("make a BPF map", || call(libc::SYS_bpf, [0, 0, 0, 0])),
    ("open a pin", || call(libc::SYS_bpf, [7, 0, 0, 0])),
    ("detach a BPF link", || call(libc::SYS_bpf, [34, 0, 0, 0])),
    ("signal the keeper", || call(libc::SYS_kill, [i64::from(nix::unistd::getppid().as_raw()), 0, 0, 0])),
    ("be dumpable", || call(libc::SYS_prctl, [libc::PR_SET_DUMPABLE.into(), 1, 0, 0])),
    ("outlive the keeper", || call(libc::SYS_prctl, [libc::PR_SET_PDEATHSIG.into(), 0, 0, 0])),
    ("become root", || call(libc::SYS_setuid, [0; 4])),
    ("take capabilities", || call(libc::SYS_capset, [0; 4])),
    ("a namespace", || call(libc::SYS_unshare, [libc::CLONE_NEWUSER.into(), 0, 0, 0])),
    ("enter a namespace", || call(libc::SYS_setns, [0; 4])),
    ("mount", || call(libc::SYS_mount, [0; 4])),
    ("change the root", || call(libc::SYS_chroot, [0; 4])),
    ("kernel keys", || call(libc::SYS_keyctl, [0; 4])),
    ("io_uring", || call(libc::SYS_io_uring_setup, [0; 4])),
    ("userfaultfd", || call(libc::SYS_userfaultfd, [0; 4])),
    ("performance counters", || call(libc::SYS_perf_event_open, [0; 4])),
    ("a file by its handle", || call(libc::SYS_open_by_handle_at, [0; 4])),
    ("another personality", || call(libc::SYS_personality, [0; 4])),
    ("a terminal's input", || call(libc::SYS_ioctl, [0, libc::TIOCSTI as i64, 0, 0])),
    ("the CPUs of the keeper", || {
        call(libc::SYS_sched_setaffinity, [i64::from(nix::unistd::getppid().as_raw()), 0, 0, 0])
    }),
    ("the priority of the keeper", || {
        call(libc::SYS_setpriority, [0, i64::from(nix::unistd::getppid().as_raw()), 19, 0])
    }),
    ("the limits of another process", || {
        call(libc::SYS_prlimit64, [i64::from(nix::unistd::getppid().as_raw()), 0, 0, 0])
    }),
];

/// Every act that ends the process.
pub const DEADLY: &[Act] = &[
    ("execve", || call(libc::SYS_execve, [0; 4])),
    ("ptrace", || call(libc::SYS_ptrace, [0; 4])),
    ("process_vm_writev", || call(libc::SYS_process_vm_writev, [0; 4])),
    ("finit_module", || call(libc::SYS_finit_module, [0; 4])),
];

/// Each of [`REFUSED`] with the name of the kernel's error, `None` if it was done.
#[must_use]
pub fn try_all() -> Vec<(&'static str, Option<String>)> {
    let tried = REFUSED.iter().map(|(name, act)| {
        let said = Errno::result(act());
        (*name, said.err().map(|errno| format!("{errno:?}")))
    });
    tried.collect()
}

/// Tries one of [`DEADLY`]; `false`: there is no such act, or the process still runs.
#[must_use]
pub fn try_deadly(name: &str) -> bool {
    DEADLY.iter().find(|(known, _)| *known == name).is_some_and(|(_, act)| {
        let _ = act();
        false
    })
}

/// Opens a path for reading; the name of the kernel's error, `None` if it was opened.
#[must_use]
pub fn try_open(path: &str) -> Option<String> {
    let Ok(path) = std::ffi::CString::new(path) else { return Some("EINVAL".to_owned()) };
    let said = Errno::result(open(&path, libc::O_RDONLY | libc::O_NONBLOCK));
    said.err().map(|errno| format!("{errno:?}"))
}

fn call(number: libc::c_long, [one, two, three, four]: [i64; 4]) -> libc::c_long {
    // SAFETY: the kernel would refuse these arguments at its first check; they name no memory of this process.
    unsafe { libc::syscall(number, one, two, three, four, -1, 0) }
}

fn open(path: &CStr, flags: libc::c_int) -> libc::c_long {
    // SAFETY: a string that ends in a zero.
    unsafe { libc::open(path.as_ptr(), flags | libc::O_CLOEXEC, 0o600) }.into()
}

fn listen() -> libc::c_long {
    let anywhere = libc::in_addr { s_addr: 0 };
    let room = libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: 0,
        sin_addr: anywhere,
        sin_zero: [0; 8],
    };
    let octets = size_of::<libc::sockaddr_in>() as libc::socklen_t;
    // SAFETY: an address of that size, which lives through the call; the descriptor is closed with the process.
    unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
        libc::bind(socket, (&raw const room).cast(), octets).into()
    }
}
