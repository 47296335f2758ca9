//! Writes entries into maps whose memory the kernel allocates with each entry.
//!
//! Before: a ban or a spent budget is to be written. After: it is in the map, or the kernel's reason is known.
//! Holds: how often a write is tried. Never: waits for more than a turn of other threads.
//!
//! Such a map takes memory from a small store of each CPU, which the kernel refills in an interrupt, and with PREEMPT_RT in a
//! thread. So, by the source, many writes in a row can find it empty (ENOMEM) although there is memory. That a ban
//! was lost to it in a test of 65,536 bans is inferred.
//!
//! Source: the kernel's kernel/bpf/memalloc.c.

use std::{io, thread};

use aya::maps::MapError;

/// One refill has 48 entries, so that few tries are enough.
const TRIES: u32 = 8;

/// The result of `insert`, which is called again while the CPU's store is empty.
pub(super) fn insert(mut insert: impl FnMut() -> Result<(), MapError>) -> Result<(), MapError> {
    for _ in 1..TRIES {
        match insert() {
            Err(error) if is_for_want_of_memory(&error) => thread::yield_now(),
            result => return result,
        }
    }
    insert()
}

fn is_for_want_of_memory(error: &MapError) -> bool {
    const ENOMEM: i32 = nix::errno::Errno::ENOMEM as i32;
    let MapError::SyscallError(error) = error else { return false };
    error.io_error.raw_os_error() == Some(ENOMEM) || error.io_error.kind() == io::ErrorKind::OutOfMemory
}

#[cfg(test)]
mod tests {
    use aya::sys::SyscallError;
    use nix::errno::Errno;

    use super::*;

    fn failing(errno: Errno, times: u32) -> (u32, bool) {
        let mut calls = 0;
        let result = insert(|| {
            calls += 1;
            if calls > times {
                return Ok(());
            }
            let io_error = io::Error::from_raw_os_error(errno as i32);
            Err(MapError::SyscallError(SyscallError { call: "bpf_map_update_elem", io_error }))
        });
        (calls, result.is_ok())
    }

    /// Goal: an empty store costs no ban, and any other refusal is final. Method: a map that refuses some writes.
    ///
    #[test]
    fn an_empty_store_is_asked_again() {
        assert_eq!(failing(Errno::ENOMEM, 0), (1, true));
        assert_eq!(failing(Errno::ENOMEM, 3), (4, true));
        assert_eq!(failing(Errno::ENOMEM, 99), (TRIES, false));
        assert_eq!(failing(Errno::E2BIG, 1), (1, false));
    }
}
