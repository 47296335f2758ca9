//! The guest's file system: the tests, the programs that they call, and a first process that runs them.
//!
//! Before: tests built for this machine. After: an archive that a kernel boots from.
//! Holds: the programs of the guest: busybox's shell as the first process, iproute2, the tests, and the libraries of
//! these.
//! Never: links a program again for the guest: the guest runs the same programs as this machine.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use super::cpio::Archive;
use crate::command;

/// The first process of the guest: file systems, modules, the tests one after another, the end.
const INIT: &str = r#"#!/bin/busybox sh
export PATH=/bin RUST_BACKTRACE=0
for folder in proc sys tmp run; do busybox mkdir -p /$folder; done
busybox mount -t proc proc /proc
busybox mount -t sysfs sysfs /sys
busybox mount -t devtmpfs dev /dev
busybox mount -t tmpfs tmp /tmp
echo 1 > /proc/sys/net/core/bpf_jit_enable
for module in $(busybox cat /modules/order); do
    busybox insmod /modules/$module || echo "DOTD no-module $module"
done
echo "DOTD kernel $(busybox uname -r)"
for test in $(busybox cat /tests/order); do
    /tests/it --test-threads=1 --nocapture $test:: < /dev/null 2>&1
    echo "DOTD ended $test $?"
done
echo "DOTD done"
busybox poweroff -f
"#;

/// The content of the archive.
pub(super) struct Guest<'a> {
    /// The test binary.
    pub(super) program: &'a Path,
    /// Its modules that the guest runs, in this order.
    pub(super) tests: &'a [&'a str],
    pub(super) modules: &'a [PathBuf],
}

/// Builds the test binary, and returns its path.
pub(super) fn build_tests(root: &Path) -> Result<PathBuf> {
    let mut cargo = command::cargo(root);
    cargo.args(["test", "--no-run", "--package", "dot-tests", "--test", "it"]);
    cargo.args(["--message-format", "json-render-diagnostics"]);
    let built = cargo.stderr(Stdio::inherit()).output().context("cannot start cargo")?;
    if !built.status.success() {
        bail!("the tests do not build");
    }
    let messages = String::from_utf8_lossy(&built.stdout).into_owned();
    messages.lines().filter_map(executable).next_back().context("cargo did not say where the tests are")
}

/// The executable in one of cargo's messages.
fn executable(message: &str) -> Option<PathBuf> {
    let (_, rest) = message.split_once("\"executable\":\"")?;
    Some(rest.split_once('"')?.0.into())
}

impl Guest<'_> {
    /// Writes the archive; `folder` is for the files beside it.
    pub(super) fn pack(&self, folder: &Path, into: &Path) -> Result<()> {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let mut archive = Archive::default();
        archive.folder("/dev");
        archive.device("dev/console", [5, 1]);
        archive.file("/init", INIT.as_bytes());
        let mut programs =
            vec![("/bin/busybox".to_owned(), which("busybox")?), ("/bin/ip".to_owned(), which("ip")?)];
        let stripped = folder.join("it");
        command::run_quietly(Command::new("strip").arg("-o").arg(&stripped).arg(self.program))?;
        programs.push(("/tests/it".to_owned(), stripped));
        let mut libraries = BTreeSet::new();
        for (place, program) in &programs {
            archive.file(place, &read(program)?);
            libraries.extend(libraries_of(program)?);
        }
        for library in &libraries {
            archive.file(&library.to_string_lossy(), &read(library)?);
        }
        for module in self.modules {
            archive.file(&format!("/modules/{}", file_name(module)), &read(module)?);
        }
        let order = |names: Vec<String>| names.join("\n").into_bytes();
        archive.file("/modules/order", &order(self.modules.iter().map(|module| file_name(module)).collect()));
        archive.file("/tests/order", self.tests.join("\n").as_bytes());
        archive.write(into).with_context(|| into.display().to_string())
    }
}

/// The path of a program.
fn which(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders =
        std::env::split_paths(&path).chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from));
    folders
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
        .with_context(|| format!("no {name} here"))
}

/// The libraries of a program, its loader among them; none for a static one.
fn libraries_of(program: &Path) -> Result<Vec<PathBuf>> {
    let ldd = Command::new("ldd").arg(program).env("LC_ALL", "C").output().context("cannot start ldd")?;
    let lines = String::from_utf8_lossy(&ldd.stdout).into_owned();
    Ok(lines.lines().filter_map(library).collect())
}

/// The path in `libc.so.6 => /lib/… (0x…)`, or in the loader's line, which has no arrow.
fn library(line: &str) -> Option<PathBuf> {
    let place = line.split_once("=> ").map_or(line, |(_, place)| place).trim();
    let path = place.split(" (").next()?;
    path.starts_with('/').then(|| path.into())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| path.display().to_string())
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::{executable, library};

    /// Goal: the output of other programs is parsed. Method: lines as cargo and ldd write them.
    #[test]
    fn lines_of_cargo_and_ldd() {
        let message =
            r#"{"reason":"compiler-artifact","executable":"/t/debug/deps/xdp_object-12ab","fresh":true}"#;
        assert_eq!(executable(message), Some("/t/debug/deps/xdp_object-12ab".into()));
        assert_eq!(executable(r#"{"executable":null}"#), None);
        let libc = "\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)";
        assert_eq!(library(libc), Some("/lib/x86_64-linux-gnu/libc.so.6".into()));
        assert_eq!(
            library("\t/lib64/ld-linux-x86-64.so.2 (0x1)"),
            Some("/lib64/ld-linux-x86-64.so.2".into())
        );
        for none in ["\tlinux-vdso.so.1 (0x7ffc)", "\tnot a dynamic executable", "\tstatically linked"] {
            assert_eq!(library(none), None);
        }
    }
}
