//! A container image as a tar of an OCI layout: `skopeo copy oci-archive:FILE …`, `podman load -i FILE`.
//!
//! Before: the table of files, and the program with the libraries of this machine. After: one layer, its configuration, and the
//! index that leads there.
//! Never: needs a daemon or a base image: the libraries of the program are included.
//!
//! Source: OCI image specification 1.1, image-layout.md, config.md, layer.md.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::{
    Product,
    archive::{Archive, gzip},
    contents::{Content, Contents},
    sha256, timestamp,
};

/// The users in the image: dotd's number is the one that Debian's base files leave to local use.
const PASSWD: &str = "root:x:0:0:root:/root:/sbin/nologin\n\
    dotd:x:853:853:DNS-over-TLS front end:/var/lib/dotd:/sbin/nologin\n";
const GROUP: &str = "root:x:0:\ndotd:x:853:\n";
const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Makes the image.
///
/// # Errors
/// A library of the program is missing here.
pub(crate) fn pack(contents: &Contents, bin: &Path, product: &Product) -> Result<Vec<u8>> {
    let layer = layer(contents, bin, product)?;
    let packed = gzip(&layer)?;
    let created = timestamp(product.epoch);
    let config = json!({
        "architecture": product.machine.oci,
        "os": "linux",
        "created": created,
        "config": {
            "Entrypoint": ["/usr/bin/dotd"],
            "Cmd": ["run"],
            "ExposedPorts": { "853/tcp": {} },
            "Volumes": { "/var/lib/dotd": {} },
            "StopSignal": "SIGTERM",
        },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", sha256(&layer))] },
        "history": [{ "created": created, "created_by": "cargo xtask dist" }],
    });
    let config = serde_json::to_vec(&config)?;
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar+gzip", &packed)],
    }))?;
    let mut of_manifest = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
    of_manifest["annotations"] =
        json!({ "org.opencontainers.image.ref.name": format!("localhost/dotd:{}", product.version) });
    let index = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [of_manifest],
    }))?;
    let mut image = Archive::new("", product.epoch);
    for blob in [&config, &manifest, &packed] {
        image.file(&format!("blobs/sha256/{}", sha256(blob)), 0o644, blob)?;
    }
    image.file("index.json", 0o644, &index)?;
    image.file("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    image.finish()
}

fn descriptor(media_type: &str, octets: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": format!("sha256:{}", sha256(octets)), "size": octets.len() })
}

/// The only file system: the program, its libraries, its config, its user, the system's authorities.
fn layer(contents: &Contents, bin: &Path, product: &Product) -> Result<Vec<u8>> {
    let mut files: BTreeMap<String, (u32, Vec<u8>)> = BTreeMap::new();
    for (path, entry) in contents {
        let is_wanted = path == "/usr/bin/dotd" || path.starts_with("/etc/");
        if let (true, Content::File(octets) | Content::Config(octets)) = (is_wanted, &entry.content) {
            files.insert(path.clone(), (entry.mode, octets.clone()));
        }
    }
    for library in libraries(bin)? {
        let octets = fs::read(&library).with_context(|| library.clone())?;
        files.insert(library, (0o755, octets));
    }
    if let Ok(authorities) = fs::read(AUTHORITIES) {
        files.insert(AUTHORITIES.to_owned(), (0o644, authorities));
    }
    files.insert("/etc/passwd".to_owned(), (0o644, PASSWD.into()));
    files.insert("/etc/group".to_owned(), (0o644, GROUP.into()));
    let mut archive = Archive::new("", product.epoch);
    for (path, (mode, octets)) in &files {
        archive.file(path, *mode, octets)?;
    }
    for (path, mode) in [("tmp", 0o1777), ("run", 0o755), ("var/lib/dotd", 0o750)] {
        archive.folder(path, mode)?;
    }
    archive.finish()
}

/// The shared libraries that the program is linked to on this machine, with the dynamic loader.
fn libraries(bin: &Path) -> Result<Vec<String>> {
    let ldd = Command::new("ldd").arg(bin).env("LC_ALL", "C").output().context("cannot start ldd")?;
    let text = String::from_utf8_lossy(&ldd.stdout).into_owned();
    if text.contains("not found") {
        bail!("{} lacks a library here:\n{text}", bin.display());
    }
    // `libc.so.6 => /lib/… (0x…)`, and the loader's line, which has no arrow.
    let path = |line: &str| {
        let place = line.split_once("=> ").map_or(line, |(_, place)| place).trim();
        place.split(" (").next().filter(|path| path.starts_with('/')).map(str::to_owned)
    };
    Ok(text.lines().filter_map(path).collect())
}
