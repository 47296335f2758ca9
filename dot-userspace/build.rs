//! Builds the kernel half and puts its object where `xdp::object` includes it.
//!
//! Before: cargo compiles dot-userspace. After: `OUT_DIR/dot-ebpf.o`, without debug sections.
//! Never: installs anything; without a toolchain the build ends with one line that names the command to run.

use std::{
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

// A private copy of xtask's file: items that are public there, or that only xtask uses, are unused here.
#[allow(dead_code, unreachable_pub)]
#[path = "../xtask/src/bpf_object.rs"]
mod bpf_object;

fn main() -> ExitCode {
    match object() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            for line in error.to_string().lines() {
                println!("cargo::error={line}");
            }
            ExitCode::FAILURE
        }
    }
}

fn object() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("..").canonicalize()?;
    for input in
        ["dot-ebpf/src", "dot-ebpf/Cargo.toml", "dot-common/src", "dot-common/Cargo.toml", "Cargo.lock"]
    {
        println!("cargo::rerun-if-changed={}", root.join(input).display());
    }
    println!("cargo::rerun-if-changed={}", root.join("xtask/src/bpf_object.rs").display());
    let toolchain = bpf_object::find()?;
    let features: &[&str] =
        if env::var_os("CARGO_FEATURE_DEBUG_LOG").is_some() { &["debug-log"] } else { &[] };
    let built = bpf_object::build(&root, &toolchain, features)?;
    let object = PathBuf::from(env::var("OUT_DIR")?).join("dot-ebpf.o");
    if !strip(&built, &object) {
        fs::copy(&built, &object)?;
    }
    Ok(())
}

/// Copies `from` to `to` without DWARF: a quarter of the size. BTF, maps and programs remain.
///
/// False when there is no llvm-strip: the whole object can be loaded too.
fn strip(from: &Path, to: &Path) -> bool {
    ["llvm-strip", "llvm-strip-22", "/usr/lib/llvm-22/bin/llvm-strip"].iter().any(|strip| {
        let run = Command::new(strip).arg("-g").arg(from).arg("-o").arg(to).output();
        run.is_ok_and(|run| run.status.success())
    })
}
