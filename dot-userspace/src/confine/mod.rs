//! Module `confine`: limits what the engine can ask of the kernel while it serves, even if an attacker controls it.
//!
//! Before: the engine has no capability, another user perhaps, and one thread. After: that thread, and every thread that it
//! makes, can call the kernel only as `calls` lists, and open only what `files` lists.
//! Holds: `calls` (seccomp), `files` (Landlock), `process` (core dumps, environment, descriptors), and in debug builds
//! `acts`, which tries forbidden acts.
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

/// Confines this thread and all that it will make. Must be called while it is the only one, and after every right was
/// given up.
///
/// `who`: the process, in the text that is returned. `folders`: the folders with the process's own files; `also_read`: paths of the system that this process reads beside those that
/// every one does. Returns the restrictions in force, as text, and whether
/// everything that `mode` asks for is in force.
pub fn confine(who: &str, mode: Sandbox, folders: &[&Path], also_read: &[&str]) -> (String, bool) {
    match mode {
        Sandbox::Off => (format!("{who} is not confined: server.sandbox is \"off\""), false),
        Sandbox::Log => match calls::log() {
            Ok(()) => (
                format!(
                    "{who} is not confined: server.sandbox is \"log\", the kernel log names each call that \"enforce\" would refuse"
                ),
                false,
            ),
            Err(error) => (format!("{who} is not confined, and nothing is logged: {error}"), false),
        },
        Sandbox::Enforce => {
            // The order matters: Landlock needs calls that the filter refuses.
            let files = files::confine(folders, also_read);
            let calls = calls::enforce();
            let is_whole = files.is_ok() && calls.is_ok();
            let files = files.unwrap_or_else(|reason| format!("files are not confined: {reason}"));
            let calls = match calls {
                Ok(()) => "system calls by seccomp".to_owned(),
                Err(error) => format!("system calls are not confined: {error}"),
            };
            (format!("{who} is confined: {calls}; {files}"), is_whole)
        }
    }
}
