//! Finds a toolchain that can compile for the BPF target, and builds dot-ebpf with it.
//!
//! Before: `cargo xtask setup` has installed one of the two toolchains. After: the object goes into dot-userspace (its
//! build.rs includes this file), or into `target/bpf` for inspection.
//! Holds: the possible places of rustc, cargo, the library sources and bpf-linker, and the build command.
//! Never: uses a crate (build.rs could not), installs anything, or lets the outer cargo's environment
//! reach the inner one.

use std::{
    env, fmt,
    path::{Path, PathBuf},
    process::Command,
};

/// The linker's folder under the user's cache: version and LLVM in its name, so that a newer one is installed beside
/// it.
pub const LINKER_FOLDER: &str = "dotd/bpf-linker-0.13.0-llvm-22/bin";

/// The target triple. Little-endian, as x86_64, arm64 and riscv64.
pub const TARGET: &str = "bpfel-unknown-none";

/// Four programs that together compile for BPF.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toolchain {
    /// The name of this way, for messages.
    pub name: &'static str,
    /// The compiler; its sysroot holds the sources of `core`.
    pub rustc: PathBuf,
    /// The cargo that goes with it.
    pub cargo: PathBuf,
    /// bpf-linker.
    pub linker: PathBuf,
}

/// No toolchain was found. `Display` is one line with the command to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Each way and the first thing it lacks.
    pub reasons: Vec<String>,
}

/// The build failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BuildError {
    /// The inner cargo did not start.
    NotStarted {
        /// The program.
        cargo: PathBuf,
        /// The error of the system.
        reason: String,
    },
    /// The inner cargo failed; its whole output.
    Failed {
        /// Its standard error.
        output: String,
    },
    /// Cargo succeeded, but there is no object.
    NoObject {
        /// The expected place of the object.
        path: PathBuf,
    },
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no eBPF toolchain ({}); run: cargo xtask setup", self.reasons.join("; "))
    }
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotStarted { cargo, reason } => {
                write!(f, "{} did not start: {reason}; run: cargo xtask setup", cargo.display())
            }
            Self::Failed { output } => write!(f, "dot-ebpf does not build:\n{output}"),
            Self::NoObject { path } => {
                write!(f, "dot-ebpf was built, but {} is not there; run: cargo xtask setup", path.display())
            }
        }
    }
}

impl std::error::Error for Missing {}
impl std::error::Error for BuildError {}

/// Finds a whole toolchain: a rustup nightly with `rust-src` first, then Debian's own rustc.
///
/// Looks at files only, apart from one `rustc --version`: it takes milliseconds.
///
/// # Errors
/// [`Missing`] names, for each way, the first thing it lacks.
pub fn find() -> Result<Toolchain, Missing> {
    let mut reasons = Vec::new();
    for way in [nightly, debian] {
        match way() {
            Ok(toolchain) => return Ok(toolchain),
            Err(reason) => reasons.push(reason),
        }
    }
    Err(Missing { reasons })
}

/// Builds dot-ebpf of the workspace at `root` into `target/bpf`, and returns the object's path.
///
/// The object still holds its debug sections. `features` are dot-ebpf's own.
///
/// # Errors
/// [`BuildError`] contains cargo's message.
pub fn build(root: &Path, toolchain: &Toolchain, features: &[&str]) -> Result<PathBuf, BuildError> {
    let target_dir = root.join("target/bpf");
    let mut cargo = Command::new(&toolchain.cargo);
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(belongs_to_the_outer_cargo) {
            cargo.env_remove(name);
        }
    }
    // Debug information becomes BTF (map shapes, line information); loaders strip the rest.
    let arch = env::consts::ARCH;
    let mut rustflags = format!(
        "--cfg=bpf_target_arch=\"{arch}\"\u{1f}-Cdebuginfo=2\u{1f}-Clink-arg=--btf\u{1f}-Ctarget-cpu=v3"
    );
    for (folder, name) in folders(root, toolchain) {
        rustflags += &format!("\u{1f}--remap-path-prefix={}={name}", folder.display());
    }
    cargo
        .current_dir(root)
        .env("RUSTC", &toolchain.rustc)
        // An empty value overrides a wrapper from the user's cargo config: sccache does not work with BPF.
        .env("RUSTC_WRAPPER", "")
        .env("RUSTC_WORKSPACE_WRAPPER", "")
        // `-Z build-std` is needed on a compiler that is not a nightly.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags)
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &toolchain.linker)
        .args(["build", "--release", "--locked", "--package", "dot-ebpf", "--target", TARGET])
        .args(["-Z", "build-std=core", "--features", &features.join(","), "--target-dir"])
        .arg(&target_dir);
    let output = cargo.output().map_err(|error| BuildError::NotStarted {
        cargo: toolchain.cargo.clone(),
        reason: error.to_string(),
    })?;
    if !output.status.success() {
        return Err(BuildError::Failed { output: String::from_utf8_lossy(&output.stderr).into_owned() });
    }
    let path = target_dir.join(TARGET).join("release/dot-ebpf");
    if path.is_file() { Ok(path) } else { Err(BuildError::NoObject { path }) }
}

/// Folders whose names must not get into the object, and what stands for them: line information is part of it.
fn folders(root: &Path, toolchain: &Toolchain) -> Vec<(PathBuf, &'static str)> {
    let cargo = env::var_os("CARGO_HOME").map(PathBuf::from);
    let cargo = cargo.or_else(|| home().map(|home| home.join(".cargo")));
    let sysroot = toolchain.rustc.ancestors().nth(2).map(|sysroot| sysroot.join("lib/rustlib/src/rust"));
    let named = [(Some(root.to_path_buf()), "dotd"), (cargo, "cargo"), (sysroot, "rust")];
    named.into_iter().filter_map(|(folder, name)| Some((folder?, name))).collect()
}

/// Whether a variable was set by, or for, the cargo that runs us: it would mislead the inner one.
///
/// The user's choices of cargo's home, network and registries are kept.
fn belongs_to_the_outer_cargo(name: &str) -> bool {
    const SET_FOR_BUILD_SCRIPTS: [&str; 14] = [
        "DEBUG",
        "HOST",
        "LD_LIBRARY_PATH",
        "MAKEFLAGS",
        "MFLAGS",
        "NUM_JOBS",
        "OPT_LEVEL",
        "OUT_DIR",
        "PROFILE",
        "RUSTC",
        "RUSTDOC",
        "RUSTFLAGS",
        "RUSTUP_TOOLCHAIN",
        "TARGET",
    ];
    const USERS_OWN: [&str; 5] =
        ["CARGO_HOME", "CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTRIES_", "CARGO_REGISTRY_"];
    if USERS_OWN.iter().any(|own| name.starts_with(own)) {
        return false;
    }
    name.starts_with("CARGO") || name.starts_with("RUSTC_") || SET_FOR_BUILD_SCRIPTS.contains(&name)
}

/// Way 1: a rustup nightly with `rust-src`.
fn nightly() -> Result<Toolchain, String> {
    let rustup = env::var_os("RUSTUP_HOME")
        .map(PathBuf::from)
        .or_else(|| home().map(|home| home.join(".rustup")))
        .ok_or("rustup: HOME is not set")?;
    let installed = std::fs::read_dir(rustup.join("toolchains")).map_err(|_| "rustup: not installed")?;
    let mut toolchains: Vec<PathBuf> = installed
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("nightly")))
        .collect();
    // The undated "nightly-<host>" sorts last: it is the one that `rustup update` keeps fresh.
    toolchains.sort();
    let with_sources = toolchains.into_iter().rev().find(|path| has_library_sources(path));
    let toolchain = with_sources.ok_or("rustup: no nightly with rust-src")?;
    Ok(Toolchain {
        name: "rustup nightly",
        rustc: toolchain.join("bin/rustc"),
        cargo: toolchain.join("bin/cargo"),
        linker: linker().ok_or("rustup nightly: no bpf-linker on PATH or in the cache")?,
    })
}

/// Way 2: Debian's rustc-web and rust-web-src, with a bpf-linker of the same LLVM in our cache folder.
fn debian() -> Result<Toolchain, String> {
    /// Edition 2024 needs 1.85; Debian 12's plain rustc is 1.63.
    const MINOR_MIN: u32 = 85;
    let rustc = PathBuf::from("/usr/bin/rustc");
    let version = Command::new(&rustc).arg("--version").env_remove("LD_LIBRARY_PATH").output();
    let version = version.map_err(|_| "/usr/bin/rustc: not installed")?;
    let version = String::from_utf8_lossy(&version.stdout).into_owned();
    let minor = version.split('.').nth(1).and_then(|minor| minor.parse::<u32>().ok());
    if minor.is_none_or(|minor| minor < MINOR_MIN) {
        return Err(format!("/usr/bin/rustc: 1.{MINOR_MIN} or newer wanted, found {:?}", version.trim()));
    }
    if !has_library_sources(Path::new("/usr")) {
        return Err("/usr/bin/rustc: no library sources (rust-web-src)".into());
    }
    let cargo = PathBuf::from("/usr/bin/cargo");
    if !cargo.is_file() {
        return Err("/usr/bin/cargo: not installed".into());
    }
    let linker =
        linker().ok_or_else(|| format!("no bpf-linker on PATH or in the cache ({LINKER_FOLDER})"))?;
    Ok(Toolchain { name: "Debian rustc-web", rustc, cargo, linker })
}

fn has_library_sources(sysroot: &Path) -> bool {
    sysroot.join("lib/rustlib/src/rust/library/core/Cargo.toml").is_file()
}

/// bpf-linker: the one in the project's cache, whose LLVM is known, before the one on PATH.
fn linker() -> Option<PathBuf> {
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| home().map(|home| home.join(".cache")));
    let cargo = env::var_os("CARGO_HOME").map(PathBuf::from);
    let cargo = cargo.or_else(|| home().map(|home| home.join(".cargo"))).map(|cargo| cargo.join("bin"));
    let path = env::var_os("PATH").unwrap_or_default();
    cache
        .map(|cache| cache.join(LINKER_FOLDER))
        .into_iter()
        .chain(env::split_paths(&path))
        .chain(cargo)
        .map(|folder| folder.join("bpf-linker"))
        .find(|file| file.is_file())
}

fn home() -> Option<PathBuf> {
    env::var_os("HOME").map(PathBuf::from)
}
