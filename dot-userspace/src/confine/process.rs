//! Core dumps, the environment, and descriptors that a process inherits.
//!
//! Before: any process started dotd. After: no core dump contains its memory, its environment contains only the
//! variables that it needs, and it has opened every descriptor itself.
//! Never: is called while there is a second thread.

use std::{env, ffi::CString, io, os::fd::RawFd};

use nix::{
    errno::Errno,
    sys::{
        prctl,
        resource::{Resource, setrlimit},
    },
};

/// Variables that the engine reads while it serves: the place of the system's authorities, and whether a panic shows a
/// backtrace.
const KEPT: [&str; 4] = ["RUST_BACKTRACE", "RUST_LIB_BACKTRACE", "SSL_CERT_DIR", "SSL_CERT_FILE"];

/// Forbids core dumps of this process, and lets only root read or trace it. A change of the user undoes the second, so
/// it must be called again then.
///
/// # Errors
/// The kernel refused.
pub fn leave_no_dump() -> io::Result<()> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    Ok(prctl::set_dumpable(false)?)
}

/// Overwrites and removes every variable of the environment except those that the engine reads: others may hold
/// credentials of other programs.
pub fn forget_environment() {
    for (name, _) in env::vars_os() {
        if KEPT.iter().any(|kept| name == *kept) {
            continue;
        }
        if let Ok(text) = CString::new(name.as_encoded_bytes()) {
            // SAFETY: one thread, so that no other thread changes the environment or reads what is being overwritten; the value is
            // a string that ends in a zero, in memory of this process that may be written.
            unsafe {
                let mut at = libc::getenv(text.as_ptr());
                while !at.is_null() && *at != 0 {
                    at.write_volatile(0);
                    at = at.add(1);
                }
            }
        }
        #[expect(clippy::disallowed_methods, reason = "there is one thread")]
        // SAFETY: one thread.
        unsafe {
            env::remove_var(&name)
        };
    }
}

/// Closes every descriptor from `first` on. Must be called before dotd has opened anything.
pub fn close_inherited(first: RawFd) {
    let Ok(from) = libc::c_uint::try_from(first) else { return };
    // SAFETY: nothing in this process owns a descriptor above standard error yet.
    let closed = Errno::result(unsafe { libc::syscall(libc::SYS_close_range, from, libc::c_uint::MAX, 0) });
    if closed.is_err() {
        // Before Linux 5.9; a shell or a supervisor leaves only a few open.
        for descriptor in first..OLD_KERNEL_MAX {
            // SAFETY: as above.
            let _ = unsafe { libc::close(descriptor) };
        }
    }
}

/// The descriptors that are closed if the kernel has no close_range.
const OLD_KERNEL_MAX: RawFd = 1024;
