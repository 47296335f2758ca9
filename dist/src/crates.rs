//! The crates from which dotd is linked: those of the engine and of the kernel half, without build tools and tests.
//!
//! Before: `cargo metadata` of the checkout. After: a list in the order of names, which the bill of materials and the
//! program's own list are made from.
//! Never: uses the network.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// The package with dotd's main function.
pub(crate) const ENGINE: &str = "dot-userspace";
/// The package whose object the engine's build script embeds.
pub(crate) const KERNEL_HALF: &str = "dot-ebpf";

/// A crate, as cargo describes it.
#[derive(Debug, Clone)]
pub(crate) struct Crate {
    /// Its package URL: `pkg:cargo/NAME@VERSION`.
    pub(crate) reference: String,
    pub(crate) package: Value,
    /// References of the crates that it is linked with.
    pub(crate) needs: BTreeSet<String>,
}

impl Crate {
    /// A field of its manifest, or an empty text.
    pub(crate) fn text(&self, key: &str) -> &str {
        self.package[key].as_str().unwrap_or_default()
    }

    /// Whether dotd is made of it, and no crate of dotd needs it.
    pub(crate) fn is_root(&self) -> bool {
        [ENGINE, KERNEL_HALF].contains(&self.text("name"))
    }
}

/// Asks cargo.
///
/// # Errors
/// cargo cannot describe the checkout.
pub(crate) fn linked(root: &Path, machine: &str) -> Result<Vec<Crate>> {
    let platform = format!("{machine}-unknown-linux-gnu");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let described = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform", &platform])
        .current_dir(root)
        .output()
        .context("cannot start cargo")?;
    if !described.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&described.stderr).trim());
    }
    Ok(reached(&serde_json::from_slice(&described.stdout)?))
}

/// Every crate that the roots lead to, in the order of references.
fn reached(metadata: &Value) -> Vec<Crate> {
    let packages: BTreeMap<&str, &Value> = list(&metadata["packages"])
        .iter()
        .filter_map(|package| Some((package["id"].as_str()?, package)))
        .collect();
    let needs: BTreeMap<&str, Vec<&str>> = list(&metadata["resolve"]["nodes"])
        .iter()
        .filter_map(|node| Some((node["id"].as_str()?, linked_with(node))))
        .collect();
    let name = |id: &&str| packages.get(id).and_then(|package| package["name"].as_str());
    let is_root = |id: &&str| name(id).is_some_and(|name| [ENGINE, KERNEL_HALF].contains(&name));
    let mut found: BTreeSet<&str> = BTreeSet::new();
    let mut waiting: Vec<&str> = needs.keys().copied().filter(is_root).collect();
    while let Some(id) = waiting.pop() {
        if found.insert(id) {
            waiting.extend(needs.get(id).into_iter().flatten());
        }
    }
    let reference = |id: &str| reference(packages.get(id).copied());
    let mut crates: Vec<Crate> = found
        .iter()
        .filter_map(|id| {
            let needs = needs.get(id).into_iter().flatten().map(|id| reference(id)).collect();
            Some(Crate { reference: reference(id), package: (*packages.get(id)?).clone(), needs })
        })
        .collect();
    crates.sort_by(|one, other| one.reference.cmp(&other.reference));
    crates
}

pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The crates that a node is linked with: neither for the build alone nor for tests.
fn linked_with(node: &Value) -> Vec<&str> {
    let is_linked =
        |dependency: &&Value| list(&dependency["dep_kinds"]).iter().any(|kind| kind["kind"].is_null());
    list(&node["deps"]).iter().filter(is_linked).filter_map(|dependency| dependency["pkg"].as_str()).collect()
}

/// A package URL.
fn reference(package: Option<&Value>) -> String {
    let text = |key: &str| package.and_then(|package| package[key].as_str()).unwrap_or_default();
    format!("pkg:cargo/{}@{}", text("name"), text("version"))
}
