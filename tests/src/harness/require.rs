//! What a test needs from the machine; if something is missing, the test prints that and ends.
//!
//! Before: a test begins. After: it runs, or its name and the reason stand in the output as `SKIPPED`.
//! Never: skips in silence, or because of a fault of dotd.

use std::{
    env,
    fs::OpenOptions,
    io::{Write, stdout},
    path::Path,
    process::{Command, Stdio},
    sync::OnceLock,
    thread,
};

use nix::{errno::Errno, sched::CloneFlags, unistd::Uid};

use super::mounts;

/// One thing a test may need.
#[derive(Clone, Copy, Debug)]
pub enum Need {
    /// Root: namespaces, veth, port 853.
    Root,
    /// The right to load BPF programs.
    Bpf,
    /// A program from apt; `cargo xtask setup` installs it.
    Command(&'static str),
}

impl Need {
    /// The reason why it is missing; `None` if it is there.
    fn missing(self) -> Option<String> {
        match self {
            Self::Root if Uid::effective().is_root() => namespaces_missing(),
            Self::Root => Some("needs root for network namespaces (run it with sudo)".to_owned()),
            Self::Bpf => bpf_missing(),
            Self::Command(name) if is_on_path(name) => None,
            Self::Command(name) => Some(format!("needs {name} (`cargo xtask setup` installs it)")),
        }
    }
}

/// Whether everything is there; if not, prints `SKIPPED <test>: <why>`.
#[must_use]
pub fn met(test: &str, needs: &[Need]) -> bool {
    let reasons: Vec<String> = needs.iter().filter_map(|need| need.missing()).collect();
    if reasons.is_empty() {
        return true;
    }
    skip(test, &reasons.join("; "));
    false
}

/// Prints `SKIPPED <test>: <why>`, for conditions that only the test itself can find out.
pub fn skip(test: &str, reason: &str) {
    let line = format!("SKIPPED {test}: {reason}\n");
    // Written around the test runner's capture, which would hide the line.
    let _ = stdout().write_all(line.as_bytes());
    if let Some(path) = env::var_os("DOTD_SKIPPED_FILE") {
        let file = OpenOptions::new().create(true).append(true).open(path);
        let _ = file.and_then(|mut file| file.write_all(line.as_bytes()));
    }
}

/// Ends the test with a `SKIPPED` line unless the machine has all of these [`Need`]s.
#[macro_export]
macro_rules! require {
    ($($need:expr),+ $(,)?) => {
        fn here() {}
        let name = ::std::any::type_name_of_val(&here).trim_end_matches("::here");
        {
            #[allow(unused_imports)]
            use $crate::harness::require::Need::{Bpf, Command, Root};
            if !$crate::harness::require::met(name, &[$($need),+]) {
                return;
            }
        }
    };
}

fn is_on_path(name: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain([Path::new("/usr/sbin").into(), Path::new("/sbin").into()])
        .any(|folder| folder.join(name).is_file())
}

/// Root in a container may lack this right. A thread tries it and ends, so that nothing is left.
fn namespaces_missing() -> Option<String> {
    static ANSWER: OnceLock<Option<String>> = OnceLock::new();
    let ask = || {
        let try_it = || mounts::separate(CloneFlags::CLONE_NEWNET);
        let tried = thread::spawn(try_it).join().unwrap_or(Err(Errno::EPERM));
        tried.err().map(|errno| {
            format!(
                "needs the right to make namespaces, CAP_SYS_ADMIN, in a chroot CAP_SYS_CHROOT too ({})",
                errno.desc()
            )
        })
    };
    ANSWER.get_or_init(ask).clone()
}

/// Found out once, by listing programs, which needs the same right as loading one.
fn bpf_missing() -> Option<String> {
    static ANSWER: OnceLock<Option<String>> = OnceLock::new();
    let ask = || {
        let mut command = Command::new("bpftool");
        command.args(["prog", "list"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        match command.status() {
            Ok(status) if status.success() => None,
            Ok(_) => Some("needs the right to load BPF programs (CAP_BPF, CAP_NET_ADMIN)".to_owned()),
            Err(error) => Some(format!("needs bpftool: {error}")),
        }
    };
    ANSWER.get_or_init(ask).clone()
}
