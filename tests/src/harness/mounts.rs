//! A mount namespace for the calling thread alone: no other process sees its mounts.
//!
//! Before: a thread with CAP_SYS_ADMIN. After: its mounts end with it and with the programs that it starts.
//! Holds: the way out of a chroot whose `/` is no mount point, and back. Never: changes the machine's own mounts.
//!
//! Source: mount_namespaces(7), chroot(2).

use nix::{
    errno::Errno,
    fcntl::{OFlag, open},
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::stat::{Mode, stat},
    unistd::{chdir, chroot, fchdir},
};

/// For the arguments of mount(2) that a call does not need.
pub const NOTHING: Option<&str> = None;

/// Gives the calling thread its own mount namespace, and these further namespaces.
///
/// # Errors
/// The error of the kernel. In a chroot the call also needs CAP_SYS_CHROOT.
pub fn separate(namespaces: CloneFlags) -> nix::Result<()> {
    unshare(namespaces | CloneFlags::CLONE_NEWNS)?;
    match make_private() {
        // `/` of this thread is no mount point: the thread is in a chroot into a plain folder.
        Err(Errno::EINVAL) => make_private_outside(),
        done => done,
    }
}

/// Makes `/` private: no mount below it reaches another namespace from now on.
fn make_private() -> nix::Result<()> {
    mount(NOTHING, "/", NOTHING, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NOTHING)
}

/// The same from the namespace's own root, which a thread in a chroot reaches through the parents of a working
/// directory outside of its root. Root and working directory are restored afterwards.
fn make_private_outside() -> nix::Result<()> {
    let folder =
        |path: &str| open(path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty());
    let (root, working) = (folder("/")?, folder(".")?);
    chroot("/sys")?;
    fchdir(&root)?;
    let identity = |path: &str| stat(path).map(|found| (found.st_dev, found.st_ino));
    while identity(".")? != identity("..")? {
        chdir("..")?;
    }
    chroot(".")?;
    let made = make_private();
    fchdir(&root)?;
    chroot(".")?;
    fchdir(&working)?;
    made
}
