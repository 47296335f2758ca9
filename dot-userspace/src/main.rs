//! The binary `dotd`: an allocator and the command line, nothing else.
//!
//! Before: the shell. After: `cli::main` says how it ended. Never: holds logic that a test would need.

use std::process::ExitCode;

/// Small, equal-sized allocations on many threads: mimalloc is made for this.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    dot_userspace::cli::main()
}
