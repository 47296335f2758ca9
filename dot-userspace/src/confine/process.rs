//! What a process leaves behind or brings along: core dumps, the environment, descriptors of the process that started it.
//!
//! Before: dotd was started by anybody. After: its memory is in no dump, its environment holds what it needs, and every
//! descriptor is one that it opened.
//! Never: is called while there is a second thread.

use std::{env, ffi::CString, io, os::fd::RawFd};

use nix::{
    errno::Errno,
    sys::{
        prctl,
        resource::{Resource, setrlimit},
    },
};

/// Variables that the engine reads while it serves: where the system's authorities are, and whether a panic shows its way.
const KEPT: [&str; 4] = ["RUST_BACKTRACE", "RUST_LIB_BACKTRACE", "SSL_CERT_DIR", "SSL_CERT_FILE"];

/// No core dump of this process, and only root may read or trace it. A change of the user undoes the second: call it
/// again then.
///
/// # Errors
/// The kernel refused.
pub fn leave_no_dump() -> io::Result<()> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    Ok(prctl::set_dumpable(false)?)
}

/// Overwrites and removes every variable of the environment but those that the engine reads: it may hold credentials that
/// are for others.
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

/// Closes every descriptor from `first` on, whatever it is. To be called before dotd has opened anything.
pub fn close_inherited(first: RawFd) {
    let Ok(from) = libc::c_uint::try_from(first) else { return };
    // SAFETY: nothing in this process owns a descriptor above standard error yet.
    let closed = Errno::result(unsafe { libc::syscall(libc::SYS_close_range, from, libc::c_uint::MAX, 0) });
    if closed.is_err() {
        // Before Linux 5.9; a few are all that a shell or a supervisor leaves open.
        for descriptor in first..OLD_KERNEL_MAX {
            // SAFETY: as above.
            let _ = unsafe { libc::close(descriptor) };
        }
    }
}

/// Descriptors that are looked at where the kernel has no close_range.
const OLD_KERNEL_MAX: RawFd = 1024;
