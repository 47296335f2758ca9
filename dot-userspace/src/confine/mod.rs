//! Module `confine`: what the engine can still ask of the kernel once it serves, even if an attacker controls it.
//!
//! Before: the engine has no capability, another user perhaps, and one thread. After: that thread, and every thread that it
//! makes, can call the kernel only as `calls` lists, and open only what `files` lists.
//! Holds: `calls` (seccomp), `files` (Landlock), `process` (core dumps, environment, descriptors), and in debug builds
//! `acts`, which tries what is forbidden.
//! Never: lets a kernel without these features keep dotd from serving: the log says what is missing.
//!
//! Source: seccomp(2), landlock(7), prctl(2) (PR_SET_DUMPABLE), close_range(2), environ(7).

#[cfg(debug_assertions)]
pub mod acts;
mod calls;
mod files;
mod process;

use std::path::Path;

pub use process::{close_inherited, forget_environment, leave_no_dump};

use crate::config::Sandbox;

/// Confines this thread and all that it will make. Call it while there is one, and after every right is gone.
///
/// `folders`: where the engine keeps files of its own. Returns what holds now, in words, and whether all that `mode` asks
/// for does.
pub fn confine(mode: Sandbox, folders: [&Path; 2]) -> (String, bool) {
    match mode {
        Sandbox::Off => ("the engine is not confined: server.sandbox is \"off\"".into(), false),
        Sandbox::Log => match calls::log() {
            Ok(()) => (
                "the engine is not confined: server.sandbox is \"log\", the kernel log names each call that \"enforce\" would refuse"
                    .into(),
                false,
            ),
            Err(error) => (format!("the engine is not confined, and nothing is logged: {error}"), false),
        },
        Sandbox::Enforce => {
            // In this order: Landlock needs calls that the filter refuses.
            let files = files::confine(folders);
            let calls = calls::enforce();
            let is_whole = files.is_ok() && calls.is_ok();
            let files = files.unwrap_or_else(|reason| format!("files are not confined: {reason}"));
            let calls = match calls {
                Ok(()) => "system calls by seccomp".to_owned(),
                Err(error) => format!("system calls are not confined: {error}"),
            };
            (format!("the engine is confined: {calls}; {files}"), is_whole)
        }
    }
}
