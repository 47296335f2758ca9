//! The binary `dotd`: an allocator and the command line, nothing else.

use std::process::ExitCode;

/// Small, equal-sized allocations on many threads: what mimalloc is made for.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    dot_userspace::cli::main()
}
