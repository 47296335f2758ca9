//! The bill of materials: every crate that is part of dotd, as CycloneDX 1.5.
//!
//! Before: the crates that dotd is linked from, and the checkout's Cargo.lock. After: JSON, with each crate's licence,
//! checksum and dependencies.
//! Never: uses the network.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::{LICENSE, Product, crates::Crate, timestamp};

/// Makes the bill.
///
/// # Errors
/// There is no Cargo.lock.
pub(crate) fn bill(root: &Path, crates: &[Crate], product: &Product) -> Result<Vec<u8>> {
    let lock = fs::read_to_string(root.join("Cargo.lock")).context("Cargo.lock")?;
    let mut text = serde_json::to_vec_pretty(&document(crates, &checksums(&lock), product))?;
    text.push(b'\n');
    Ok(text)
}

/// The whole document; crates in the order of their names.
fn document(crates: &[Crate], checksums: &BTreeMap<String, String>, product: &Product) -> Value {
    let components: Vec<Value> = crates.iter().map(|one| component(one, checksums)).collect();
    let own = format!("pkg:generic/dotd@{}", product.version);
    let mut dependencies: Vec<Value> =
        crates.iter().map(|one| json!({ "ref": one.reference, "dependsOn": one.needs })).collect();
    let roots: Vec<&str> =
        crates.iter().filter(|one| one.is_root()).map(|one| one.reference.as_str()).collect();
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

fn component(one: &Crate, checksums: &BTreeMap<String, String>) -> Value {
    let (reference, text) = (&one.reference, |key: &str| one.text(key));
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
    if let Some(repository) = one.package["repository"].as_str() {
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
