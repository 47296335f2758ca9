//! The bill of materials: every crate that is part of dotd, as CycloneDX 1.5.
//!
//! Before: `cargo metadata` of the checkout, and its Cargo.lock. After: JSON, with each crate's licence, checksum and
//! dependencies.
//! Holds: the choice of crates: those from which the engine and the kernel half are linked. Build tools are not
//! included.
//! Never: uses the network.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::{LICENSE, Product, timestamp};

/// The project's packages of which dotd is made.
const ROOTS: [&str; 2] = ["dot-userspace", "dot-ebpf"];

/// Makes the bill.
///
/// # Errors
/// cargo cannot describe the checkout.
pub(crate) fn bill(root: &Path, product: &Product) -> Result<Vec<u8>> {
    let platform = format!("{}-unknown-linux-gnu", product.machine.linux);
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let described = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform", &platform])
        .current_dir(root)
        .output()
        .context("cannot start cargo")?;
    if !described.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&described.stderr).trim());
    }
    let metadata: Value = serde_json::from_slice(&described.stdout)?;
    let lock = fs::read_to_string(root.join("Cargo.lock")).context("Cargo.lock")?;
    let mut text = serde_json::to_vec_pretty(&document(&metadata, &checksums(&lock), product))?;
    text.push(b'\n');
    Ok(text)
}

/// The whole document; crates in the order of their names.
fn document(metadata: &Value, checksums: &BTreeMap<String, String>, product: &Product) -> Value {
    let packages: BTreeMap<&str, &Value> = list(&metadata["packages"])
        .iter()
        .filter_map(|package| Some((package["id"].as_str()?, package)))
        .collect();
    let needs: BTreeMap<&str, Vec<&str>> = list(&metadata["resolve"]["nodes"])
        .iter()
        .filter_map(|node| Some((node["id"].as_str()?, linked(node))))
        .collect();
    let is_root =
        |id: &str| packages.get(id).is_some_and(|package| ROOTS.iter().any(|root| package["name"] == *root));
    let mut reached: BTreeSet<&str> = BTreeSet::new();
    let mut waiting: Vec<&str> = needs.keys().copied().filter(|id| is_root(id)).collect();
    while let Some(id) = waiting.pop() {
        if reached.insert(id) {
            waiting.extend(needs.get(id).into_iter().flatten());
        }
    }
    let mut crates: Vec<(String, &str)> =
        reached.iter().map(|id| (reference(packages.get(id).copied()), *id)).collect();
    crates.sort();
    let components: Vec<Value> = crates
        .iter()
        .filter_map(|(reference, id)| Some(component(packages.get(id)?, reference, checksums)))
        .collect();
    let own = format!("pkg:generic/dotd@{}", product.version);
    let mut dependencies: Vec<Value> = crates
        .iter()
        .map(|(name, id)| {
            let on = needs.get(id).into_iter().flatten().map(|id| reference(packages.get(id).copied()));
            json!({ "ref": name, "dependsOn": on.collect::<BTreeSet<_>>() })
        })
        .collect();
    let roots: BTreeSet<_> =
        crates.iter().filter(|(_, id)| is_root(id)).map(|(reference, _)| reference).collect();
    dependencies.push(json!({ "ref": own, "dependsOn": roots }));
    json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": timestamp(product.epoch),
            "component": {
                "type": "application",
                "bom-ref": own,
                "name": "dotd",
                "version": product.version,
                "licenses": [{ "expression": LICENSE }],
                "purl": own,
            },
        },
        "components": components,
        "dependencies": dependencies,
    })
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The crates that a node is linked with: neither for the build alone nor for tests.
fn linked(node: &Value) -> Vec<&str> {
    let is_linked =
        |dependency: &&Value| list(&dependency["dep_kinds"]).iter().any(|kind| kind["kind"].is_null());
    list(&node["deps"]).iter().filter(is_linked).filter_map(|dependency| dependency["pkg"].as_str()).collect()
}

/// A package URL.
fn reference(package: Option<&Value>) -> String {
    let text = |key: &str| package.and_then(|package| package[key].as_str()).unwrap_or_default();
    format!("pkg:cargo/{}@{}", text("name"), text("version"))
}

fn component(package: &Value, reference: &str, checksums: &BTreeMap<String, String>) -> Value {
    let text = |key: &str| package[key].as_str().unwrap_or_default();
    let mut component = json!({
        "type": "library",
        "bom-ref": reference,
        "name": text("name"),
        "version": text("version"),
        "purl": reference,
    });
    // Cargo once wrote "MIT/Apache-2.0" for a choice.
    let license = text("license").replace('/', " OR ");
    if !license.is_empty() {
        component["licenses"] = json!([{ "expression": license }]);
    }
    if let Some(sum) = checksums.get(&format!("{}@{}", text("name"), text("version"))) {
        component["hashes"] = json!([{ "alg": "SHA-256", "content": sum }]);
    }
    if let Some(repository) = package["repository"].as_str() {
        component["externalReferences"] = json!([{ "type": "vcs", "url": repository }]);
    }
    component
}

/// `name@version` and the checksum of each crate in a Cargo.lock.
fn checksums(lock: &str) -> BTreeMap<String, String> {
    let value = |block: &str, key: &str| {
        let line = block.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = \""))?;
        Some(line.trim_end_matches('"').to_owned())
    };
    lock.split("[[package]]")
        .filter_map(|block| {
            let name = format!("{}@{}", value(block, "name")?, value(block, "version")?);
            Some((name, value(block, "checksum")?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: checksums are those of their crates. Method: a lock file with a crate of the project, which has none.
    #[test]
    fn checksums_of_a_lock_file() {
        let lock = "version = 4\n\n[[package]]\nname = \"ours\"\nversion = \"0.1.0\"\n\n[[package]]\nname = \"a\"\n\
            version = \"1.2.3\"\nsource = \"registry\"\nchecksum = \"ab12\"\n";
        let found = checksums(lock);
        assert_eq!(found.len(), 1);
        assert_eq!(found.get("a@1.2.3").map(String::as_str), Some("ab12"));
    }
}
