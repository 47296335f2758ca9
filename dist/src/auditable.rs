//! The list of crates inside the program, in the form of `cargo auditable`: JSON, compressed by zlib, in the section
//! `.dep-v0`. `cargo audit bin`, `rust-audit-info`, Trivy, Syft and Grype read it.
//!
//! Before: the crates that dotd is linked from. After: the octets of the section.
//! Holds: one root, which is the engine; the kernel half counts as one of its crates, because the engine embeds it.
//! Never: needs a wrapper around rustc: the section is added to a program that is built.
//!
//! Source: cargo-auditable, PARSING.md; auditable-serde 0.9.

use std::{collections::BTreeMap, io::Write as _};

use anyhow::Result;
use flate2::{Compression, write::ZlibEncoder};
use serde_json::{Value, json};

use crate::crates::{Crate, ENGINE, KERNEL_HALF};

/// The section's name.
pub(crate) const SECTION: &str = ".dep-v0";

/// The section's octets.
///
/// # Errors
/// None that a machine with memory has.
pub(crate) fn section(crates: &[Crate]) -> Result<Vec<u8>> {
    let mut packed = ZlibEncoder::new(Vec::new(), Compression::new(9));
    packed.write_all(&serde_json::to_vec(&document(crates))?)?;
    Ok(packed.finish()?)
}

/// The whole document. A crate refers to others by their places in the list.
fn document(crates: &[Crate]) -> Value {
    let places: BTreeMap<&str, usize> =
        crates.iter().enumerate().map(|(place, one)| (one.reference.as_str(), place)).collect();
    let kernel_half = crates.iter().position(|one| one.text("name") == KERNEL_HALF);
    let packages = crates.iter().map(|one| {
        let is_engine = one.text("name") == ENGINE;
        let needs = one.needs.iter().filter_map(|reference| places.get(reference.as_str()).copied());
        let mut needs: Vec<usize> = needs.chain(kernel_half.filter(|_| is_engine)).collect();
        needs.sort_unstable();
        let source = if one.package["source"].is_null() { "local" } else { "crates.io" };
        let mut package =
            json!({ "name": one.text("name"), "version": one.text("version"), "source": source });
        if !needs.is_empty() {
            package["dependencies"] = json!(needs);
        }
        if is_engine {
            package["root"] = json!(true);
        }
        package
    });
    json!({ "packages": packages.collect::<Vec<_>>() })
}
