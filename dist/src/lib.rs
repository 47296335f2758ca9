//! dotd as packages: .deb, .rpm, tarball and OCI image layout from one table of files, an SBOM and checksums.
//!
//! Before: a dotd that was built, and the checkout that it was built from. After: a folder of packages; the same program and
//! the same commit give the same octets.
//! Holds: the order in which they are made. Never: uses the network; stores the current time or the name of this
//! machine.

mod archive;
mod auditable;
mod contents;
mod crates;
mod deb;
mod manual;
mod oci;
mod redhat;
mod sbom;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use sha2::{Digest as _, Sha256};

pub use manual::page;

/// Names the program to pack and the folder for the packages.
#[derive(Debug, Clone)]
pub struct Order {
    /// The program.
    pub bin: PathBuf,
    /// The newest glibc that the program may ask for.
    pub glibc_max: Option<String>,
    /// The checkout that the other files come from.
    pub root: PathBuf,
    /// The folder for the packages.
    pub into: PathBuf,
    /// Time of every file, in seconds of Unix time.
    pub epoch: u32,
    /// Revision of the packages of this version.
    pub revision: u32,
}

/// The values that every kind of package needs.
#[derive(Debug)]
struct Product {
    version: String,
    revision: u32,
    epoch: u32,
    machine: Machine,
    /// The newest version of glibc that the program of .deb and .rpm asks for: "2.34"; `None` for a static program.
    glibc: Option<String>,
}

/// The machine that the program is for, under the name that each kind of package uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Machine {
    linux: &'static str,
    debian: &'static str,
    oci: &'static str,
}

const X86_64: Machine = Machine { linux: "x86_64", debian: "amd64", oci: "amd64" };
const AARCH64: Machine = Machine { linux: "aarch64", debian: "arm64", oci: "arm64" };

/// The package's description, in one line.
const SUMMARY: &str = "DNS over TLS in front of a DNS server";
/// The same, in a paragraph.
const DESCRIPTION: &str = "dotd takes DNS-over-TLS queries (RFC 7858) on port 853, forwards them in batches to a DNS\n\
    server behind it and returns the responses. An XDP program in the kernel drops what does\n\
    not belong on the port before it costs anything.";
const LICENSE: &str = "MIT OR Apache-2.0";
const MAINTAINER: &str = "dotd maintainers <maintainers@dotd.invalid>";

/// Makes every package and returns their paths, the checksums last.
///
/// # Errors
/// The program cannot be run or read, a file of the checkout is missing, or `into` cannot be written.
pub fn pack(order: &Order) -> Result<Vec<PathBuf>> {
    fs::create_dir_all(&order.into).with_context(|| order.into.display().to_string())?;
    let bin = fs::canonicalize(&order.bin).with_context(|| format!("no program {}", order.bin.display()))?;
    let version = version(&bin)?;
    let given = fs::read(&bin).with_context(|| order.bin.display().to_string())?;
    let machine = machine(&given).with_context(|| order.bin.display().to_string())?;
    let crates = crates::linked(&order.root, machine.linux)?;
    let list = auditable::section(&crates)?;
    let program = finished(&bin, &list, &order.into)?;
    if let (Some(max), Some(asked)) = (&order.glibc_max, glibc(&program))
        && minor(&asked) > minor(max)
    {
        bail!("{} asks for glibc {asked}, and may ask for {max}", order.bin.display());
    }
    let product =
        Product { machine, glibc: glibc(&program), version, revision: order.revision, epoch: order.epoch };
    let sbom = sbom::bill(&order.root, &crates, &product)?;
    let contents = contents::gather(&order.root, &bin, program, sbom.clone(), &product)?;
    let scripts = order.root.join("packaging/scripts");
    let (version, revision, linux) = (&product.version, product.revision, product.machine.linux);
    let name = format!("dotd-{version}-{linux}-linux");
    let made = [
        (
            format!("dotd_{version}-{revision}_{}.deb", product.machine.debian),
            deb::pack(&contents, &scripts, &product)?,
        ),
        (format!("dotd-{version}-{revision}.{linux}.rpm"), redhat::pack(&contents, &scripts, &product)?),
        (format!("{name}.tar.gz"), archive::tarball(&contents, &name, product.epoch)?),
        (format!("{name}.oci.tar"), oci::pack(&contents, &bin, &product)?),
        (format!("dotd-{version}.cdx.json"), sbom),
    ];
    let mut sums = String::new();
    let mut files = Vec::new();
    for (name, octets) in made {
        sums += &format!("{}  {name}\n", sha256(&octets));
        files.push(write(&order.into.join(name), &octets)?);
    }
    files.push(write(&order.into.join("SHA256SUMS"), sums.as_bytes())?);
    Ok(files)
}

/// A maintainer script. The line `@NAME@` in it stands for the file NAME, which several scripts share.
fn script(scripts: &Path, name: &str) -> Result<String> {
    let read = |name: &str| {
        let path = scripts.join(name);
        fs::read_to_string(&path).with_context(|| path.display().to_string())
    };
    let mut whole = String::new();
    for line in read(name)?.lines() {
        match line.strip_prefix('@').and_then(|line| line.strip_suffix('@')) {
            Some(shared) => whole += &read(shared)?,
            None => whole += &format!("{line}\n"),
        }
    }
    Ok(whole)
}

fn write(path: &Path, octets: &[u8]) -> Result<PathBuf> {
    fs::write(path, octets).with_context(|| path.display().to_string())?;
    Ok(path.to_owned())
}

/// SHA-256 in hexadecimal.
fn sha256(octets: &[u8]) -> String {
    Sha256::digest(octets).iter().map(|octet| format!("{octet:02x}")).collect()
}

/// "0.1.0" of "dotd 0.1.0".
fn version(bin: &Path) -> Result<String> {
    let said = said(bin, &["--version"])?;
    let version =
        said.trim().strip_prefix("dotd ").with_context(|| format!("{said:?} is no version of dotd"))?;
    Ok(version.to_owned())
}

/// The output of the program for these arguments.
fn said(bin: &Path, words: &[&str]) -> Result<String> {
    let output = Command::new(bin).args(words).output();
    let output = output.with_context(|| format!("cannot start {}", bin.display()))?;
    if !output.status.success() {
        bail!("{} {} ended with {}", bin.display(), words.join(" "), output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("{} prints no UTF-8", bin.display()))
}

/// The program without its symbols, and with the list of its crates.
fn finished(bin: &Path, list: &[u8], into: &Path) -> Result<Vec<u8>> {
    let own = |kind: &str| into.join(format!(".dotd-{kind}-{}", std::process::id()));
    let (to, section) = (own("program"), own("crates"));
    write(&section, list)?;
    let mut objcopy = Command::new("objcopy");
    objcopy.arg("--strip-all").arg("--add-section");
    objcopy.arg(format!("{}={}", auditable::SECTION, section.display())).arg(bin).arg(&to);
    let status = objcopy.status().context("cannot start objcopy");
    let _ = fs::remove_file(&section);
    let status = status?;
    if !status.success() {
        bail!("objcopy {} ended with {status}", bin.display());
    }
    let octets = fs::read(&to).with_context(|| to.display().to_string());
    let _ = fs::remove_file(&to);
    octets
}

/// The machine of an ELF file: octet 18 of its header (e_machine).
fn machine(program: &[u8]) -> Result<Machine> {
    match (program.get(..4), program.get(18)) {
        (Some(b"\x7fELF"), Some(62)) => Ok(X86_64),
        (Some(b"\x7fELF"), Some(183)) => Ok(AARCH64),
        _ => bail!("is no program for x86-64 or 64-bit ARM"),
    }
}

/// The newest of the versions of glibc whose names are in a program; a static one has none.
fn glibc(program: &[u8]) -> Option<String> {
    const NAME: &[u8] = b"GLIBC_2.";
    let minors = program.windows(NAME.len()).enumerate().filter(|(_, window)| *window == NAME);
    let minors = minors.filter_map(|(at, _)| {
        let digits: String = program[at + NAME.len()..]
            .iter()
            .take_while(|octet| octet.is_ascii_digit())
            .map(|&octet| octet as char)
            .collect();
        digits.parse::<u32>().ok()
    });
    minors.max().map(|minor| format!("2.{minor}"))
}

/// 34 of "2.34".
fn minor(version: &str) -> Option<u32> {
    version.strip_prefix("2.")?.parse().ok()
}

/// `YYYY-MM-DDTHH:MM:SSZ` of a time in seconds.
fn timestamp(epoch: u32) -> String {
    let (days, seconds) = (epoch / 86_400, epoch % 86_400);
    // Days since the first of March of year 0, in eras of 400 years: a leap day is the last day of such a year.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year + u32::from(month <= 2);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day_of_month:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: times are those of the calendar. Method: the beginning, a leap day, and the last second that the type holds.
    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(timestamp(0), "1970-01-01T00:00:00Z");
        assert_eq!(timestamp(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(timestamp(u32::MAX), "2106-02-07T06:28:15Z");
    }

    /// Goal: the versions that a program needs are read from it. Method: names of versions among other octets.
    #[test]
    fn the_newest_glibc_counts() {
        assert_eq!(glibc(b"..GLIBC_2.9\0GLIBC_2.34\0GLIBC_2.3.4\0GLIBC_PRIVATE").as_deref(), Some("2.34"));
        assert_eq!(glibc(b"GLIBC_PRIVATE"), None);
        assert!(machine(b"#!/bin/sh\n").is_err());
    }
}
