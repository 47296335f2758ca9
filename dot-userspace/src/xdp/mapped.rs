//! A map of the kernel half that is mapped into this process: it is read and written without a system call.
//!
//! Before: a loaded object has an array that may be mapped (BPF_F_MMAPABLE). After: its values are cells of this
//! process.
//! Holds: the mapping. Never: reaches beyond the mapped cells.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
    ptr::{NonNull, null_mut},
    slice,
    sync::atomic::AtomicU64,
};

/// Values of a mapped array.
///
/// # Safety
/// Consists of atomic words, and any octets are a value.
pub(super) unsafe trait Words: Sync {}

// SAFETY: one atomic word.
unsafe impl Words for AtomicU64 {}

/// An array that is mapped into memory.
pub(super) struct Mapped<T> {
    cells: NonNull<T>,
    count: usize,
}

// SAFETY: the memory stays mapped until the end of this value, and its words are atomic.
unsafe impl<T: Words> Send for Mapped<T> {}
// SAFETY: as above.
unsafe impl<T: Words> Sync for Mapped<T> {}

impl<T: Words> Mapped<T> {
    /// Maps the first `count` values.
    pub(super) fn map(map: impl AsFd, count: usize) -> io::Result<Self> {
        let (rights, descriptor) = (libc::PROT_READ | libc::PROT_WRITE, map.as_fd().as_raw_fd());
        // SAFETY: a new mapping at an address of the kernel's choice; the map outlives its descriptor through it.
        let start = unsafe {
            libc::mmap(null_mut(), count * size_of::<T>(), rights, libc::MAP_SHARED, descriptor, 0)
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let cells = NonNull::new(start.cast::<T>()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Self { cells, count })
    }

    /// The values.
    pub(super) fn cells(&self) -> &[T] {
        // SAFETY: `count` cells are mapped, at a page's start, for as long as `self` is; any octets are cells.
        unsafe { slice::from_raw_parts(self.cells.as_ptr(), self.count) }
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this length; no reference outlives `self`.
        let _ = unsafe { libc::munmap(self.cells.as_ptr().cast(), self.count * size_of::<T>()) };
    }
}
