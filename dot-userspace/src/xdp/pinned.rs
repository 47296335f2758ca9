//! Objects of the BPF file system without regard to their kind: open, pin again elsewhere, detach.
//!
//! Before: a pin in an open folder. After: its object, a map or a link, has a descriptor, or another pin. aya asks for the kind first, and
//! has no way to detach a link that stays pinned.
//! Never: detaches what is not a link: the kernel refuses.
//!
//! Source: bpf(2) (BPF_OBJ_GET, BPF_OBJ_PIN, BPF_LINK_DETACH), linux/bpf.h.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

const OBJ_PIN: libc::c_int = 6;
const OBJ_GET: libc::c_int = 7;
const LINK_DETACH: libc::c_int = 34;

/// `union bpf_attr` of the first two commands.
#[repr(C)]
struct ByPath {
    path: u64,
    descriptor: u32,
    flags: u32,
}

/// `union bpf_attr` of the third command.
#[repr(C)]
struct OfLink {
    descriptor: u32,
}

/// The object of a pin.
pub(super) fn open(pin: &Path) -> io::Result<OwnedFd> {
    let number = by_path(OBJ_GET, pin, 0)?;
    // SAFETY: the kernel has just made this descriptor, for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Gives the object a pin.
pub(super) fn keep(object: &OwnedFd, pin: &Path) -> io::Result<()> {
    by_path(OBJ_PIN, pin, object.as_raw_fd().cast_unsigned()).map(drop)
}

/// Detaches a link from its interface, whatever still refers to it.
pub(super) fn detach(link: &OwnedFd) -> io::Result<()> {
    let attributes = OfLink { descriptor: link.as_raw_fd().cast_unsigned() };
    call(LINK_DETACH, &attributes).map(drop)
}

fn by_path(command: libc::c_int, pin: &Path, descriptor: u32) -> io::Result<libc::c_int> {
    let path = CString::new(pin.as_os_str().as_bytes())?;
    let attributes = ByPath { path: path.as_ptr().expose_provenance() as u64, descriptor, flags: 0 };
    call(command, &attributes)
}

fn call<T>(command: libc::c_int, attributes: &T) -> io::Result<libc::c_int> {
    // SAFETY: the attributes are those of the command, with their size, and so is the string that they point to, both of which live until
    // the call returns; the kernel only reads them.
    let outcome =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
    if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(outcome as libc::c_int) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a path without a pin, and a path that cannot be one, are errors. Method: both.
    #[test]
    fn what_is_no_pin_is_an_error() {
        assert!(open(Path::new("/nonexistent")).is_err());
        assert!(open(Path::new("a\0b")).is_err());
    }
}
