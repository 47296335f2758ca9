//! The table of all files of an installed dotd.
//!
//! Before: a checkout, and a program. After: each path with its mode and octets, in order.
//! Never: differs between two packings of the same program and commit.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result};

use crate::{Product, archive::gzip, manual, said};

/// Every file and folder by its path, which begins with a slash.
pub(crate) type Contents = BTreeMap<String, Entry>;

/// A file or a folder that belongs to root.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) mode: u32,
    pub(crate) content: Content,
}

/// Its content.
#[derive(Debug, Clone)]
pub(crate) enum Content {
    Folder,
    File(Vec<u8>),
    /// A config file: an upgrade does not replace it after an operator has changed it.
    Config(Vec<u8>),
}

/// Files that are installed unchanged from the checkout.
const AS_THEY_ARE: &[(&str, &str)] = &[
    ("packaging/dotd.service", "/usr/lib/systemd/system/dotd.service"),
    ("packaging/dotd-detach.service", "/usr/lib/systemd/system/dotd-detach.service"),
    ("packaging/run-dotd.bpf.mount", "/usr/lib/systemd/system/run-dotd.bpf.mount"),
    ("packaging/dotd.sysusers", "/usr/lib/sysusers.d/dotd.conf"),
    ("packaging/dotd.tmpfiles", "/usr/lib/tmpfiles.d/dotd.conf"),
    ("packaging/prometheus-alerts.yml", "/usr/share/doc/dotd/prometheus-alerts.yml"),
    ("packaging/grafana-dotd.json", "/usr/share/doc/dotd/grafana-dotd.json"),
    ("README.md", "/usr/share/doc/dotd/README.md"),
    ("SECURITY.md", "/usr/share/doc/dotd/SECURITY.md"),
    ("docs/config.md", "/usr/share/doc/dotd/config.md"),
    ("docs/counters.md", "/usr/share/doc/dotd/counters.md"),
    ("docs/metrics.md", "/usr/share/doc/dotd/metrics.md"),
    ("examples/appliance.toml", "/usr/share/doc/dotd/examples/appliance.toml"),
    ("examples/company.toml", "/usr/share/doc/dotd/examples/company.toml"),
    ("examples/public-resolver.toml", "/usr/share/doc/dotd/examples/public-resolver.toml"),
];

/// Shells, and the places where they look for completions.
const COMPLETIONS: &[(&str, &str)] = &[
    ("bash", "/usr/share/bash-completion/completions/dotd"),
    ("zsh", "/usr/share/zsh/vendor-completions/_dotd"),
    ("fish", "/usr/share/fish/vendor_completions.d/dotd.fish"),
];

/// Gathers everything.
///
/// # Errors
/// A file of the checkout is missing, or the program does not print its version or its help.
pub(crate) fn gather(
    root: &Path,
    bin: &Path,
    program: Vec<u8>,
    sbom: Vec<u8>,
    product: &Product,
) -> Result<Contents> {
    let read = |path: &str| {
        let path = root.join(path);
        fs::read(&path).with_context(|| path.display().to_string())
    };
    let mut contents = Contents::new();
    let mut add = |path: &str, mode: u32, content: Content| {
        contents.insert(path.to_owned(), Entry { mode, content });
    };
    add("/usr/bin/dotd", 0o755, Content::File(program));
    add("/etc/dotd", 0o755, Content::Folder);
    add("/etc/dotd/dotd.toml", 0o644, Content::Config(read("packaging/dotd.toml")?));
    for (from, to) in AS_THEY_ARE {
        add(to, 0o644, Content::File(read(from)?));
    }
    for (shell, to) in COMPLETIONS {
        add(to, 0o644, Content::File(said(bin, &["completions", shell])?.into_bytes()));
    }
    for (name, text) in manual::pages(bin)? {
        let section = name.rsplit('.').next().unwrap_or_default();
        add(&format!("/usr/share/man/man{section}/{name}.gz"), 0o644, Content::File(gzip(text.as_bytes())?));
    }
    let page = manual::page(&String::from_utf8(read("docs/config.md")?)?, &product.version);
    add("/usr/share/man/man5/dotd.toml.5.gz", 0o644, Content::File(gzip(page.as_bytes())?));
    let changelog = gzip(&read("CHANGELOG.md")?)?;
    add("/usr/share/doc/dotd/changelog.gz", 0o644, Content::File(changelog));
    let copyright = copyright(&String::from_utf8(read("LICENSE-MIT")?)?);
    add("/usr/share/doc/dotd/copyright", 0o644, Content::File(copyright.into_bytes()));
    add("/usr/share/doc/dotd/LICENSE-APACHE", 0o644, Content::File(read("LICENSE-APACHE")?));
    add("/usr/share/doc/dotd/dotd.cdx.json", 0o644, Content::File(sbom));
    Ok(contents)
}

fn copyright(mit: &str) -> String {
    format!(
        "dotd is licensed under either of the Apache License, Version 2.0 (LICENSE-APACHE in this folder) or the\n\
         MIT license below, at your option. dotd.cdx.json lists the crates that are part of the program, each with its\n\
         licence.\n\n{mit}"
    )
}
