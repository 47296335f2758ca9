//! The Debian package: an `ar` archive of three members (deb(5)).
//!
//! Before: the table of files, and the maintainer scripts. After: octets that dpkg installs.
//! Never: calls dpkg: the packages are made on any Linux.

use std::path::Path;

use anyhow::Result;

use crate::{
    DESCRIPTION, MAINTAINER, Product, SUMMARY,
    archive::{Archive, gzip},
    contents::{Content, Contents},
    script,
};

/// dpkg's name for a script, and its file.
const SCRIPTS: &[(&str, &str)] =
    &[("postinst", "deb-postinst.sh"), ("prerm", "deb-prerm.sh"), ("postrm", "deb-postrm.sh")];

/// Makes the package.
///
/// # Errors
/// A script is missing.
pub(crate) fn pack(contents: &Contents, scripts: &Path, product: &Product) -> Result<Vec<u8>> {
    let mut data = Archive::new("./", product.epoch);
    data.top()?;
    data.all(contents)?;
    let mut control = Archive::new("./", product.epoch);
    control.top()?;
    control.file("control", 0o644, fields(contents, product).as_bytes())?;
    let configs = contents.iter().filter(|(_, entry)| matches!(entry.content, Content::Config(_)));
    let configs: String = configs.map(|(path, _)| format!("{path}\n")).collect();
    control.file("conffiles", 0o644, configs.as_bytes())?;
    for (name, file) in SCRIPTS {
        control.file(name, 0o755, script(scripts, file)?.as_bytes())?;
    }
    let mut package = b"!<arch>\n".to_vec();
    member(&mut package, "debian-binary", b"2.0\n", product.epoch);
    member(&mut package, "control.tar.gz", &gzip(&control.finish()?)?, product.epoch);
    member(&mut package, "data.tar.gz", &gzip(&data.finish()?)?, product.epoch);
    Ok(package)
}

/// The fields of `control`.
fn fields(contents: &Contents, product: &Product) -> String {
    let Product { version, revision, machine, glibc, .. } = product;
    let octets = contents.values().map(|entry| match &entry.content {
        Content::Folder => 1024,
        Content::File(octets) | Content::Config(octets) => octets.len().next_multiple_of(1024),
    });
    let kibioctets = octets.sum::<usize>() / 1024;
    let libraries =
        glibc.as_ref().map_or_else(String::new, |glibc| format!("libc6 (>= {glibc}), libgcc-s1, "));
    let description: String = DESCRIPTION.lines().map(|line| format!(" {line}\n")).collect();
    format!(
        "Package: dotd\nVersion: {version}-{revision}\nArchitecture: {}\nMaintainer: {MAINTAINER}\n\
         Installed-Size: {kibioctets}\nDepends: {libraries}passwd\nRecommends: ca-certificates\n\
         Suggests: knot-dnsutils\nSection: net\nPriority: optional\nDescription: {SUMMARY}\n{description}",
        machine.debian
    )
}

/// A header of sixty octets, the octets, and one more where their number is odd.
fn member(package: &mut Vec<u8>, name: &str, octets: &[u8], epoch: u32) {
    let header = format!("{name:<16}{epoch:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, "100644", octets.len());
    package.extend(header.bytes());
    package.extend(octets);
    if !octets.len().is_multiple_of(2) {
        package.push(b'\n');
    }
}
