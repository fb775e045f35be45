//! Who may depend on whom, and under which licences.
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use super::none;
use super::source::{CRATES, root};

/// Dependencies point one way; engine and store do not know each other, policies know nobody.
#[test]
fn dependencies_go_one_way() {
    let allowed = BTreeMap::from([
        ("engine", vec![]),
        ("store", vec![]),
        ("policies", vec![]),
        ("supervisor", vec!["engine", "store", "policies"]),
        ("cli", vec!["supervisor", "engine", "store", "policies"]),
    ]);
    let mut offenders = Vec::new();
    for (krate, allowed) in allowed {
        let manifest = fs::read_to_string(root().join(krate).join("Cargo.toml")).unwrap();
        for other in CRATES.iter().filter(|other| **other != krate && !allowed.contains(other)) {
            if manifest.lines().any(|line| {
                line.starts_with(&format!("{other}.")) || line.starts_with(&format!("{other} "))
            }) {
                offenders.push(format!("{krate} depends on {other}"));
            }
        }
    }
    none("cli, supervisor, then engine, store and policies", &offenders);
}

/// What cargo-deny would say of licences and sources, by the lists of deny.toml.
#[test]
fn dependencies_are_free_and_from_the_registry() {
    let deny = fs::read_to_string(root().join("deny.toml")).unwrap();
    let list = deny.lines().find_map(|line| line.strip_prefix("allow = [")).unwrap();
    let allowed: BTreeSet<&str> =
        list.trim_end_matches(']').split(',').map(|one| one.trim().trim_matches('"')).collect();
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version=1",
            "--locked",
            "--offline",
            "--filter-platform=x86_64-unknown-linux-gnu",
        ])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut offenders = Vec::new();
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        let license = package["license"].as_str().unwrap_or("none");
        if !permitted(license, &allowed) {
            offenders.push(format!("{name}: {license}"));
        }
        if package["source"].as_str().is_some_and(|source| !source.starts_with("registry+")) {
            offenders.push(format!("{name}: from {}", package["source"]));
        }
    }
    none("dependencies' licences and sources are those of deny.toml", &offenders);
}

/// Whether an SPDX expression holds with the licences allowed; `A/B` is the old way to write OR.
fn permitted(expression: &str, allowed: &BTreeSet<&str>) -> bool {
    let expression = expression.replace('/', " OR ").replace(['(', ')'], "");
    // Precedent only for `(A OR B) AND C` and `A AND B`: each part has an allowed alternative.
    expression
        .split(" AND ")
        .all(|part| part.split(" OR ").any(|license| allowed.contains(license.trim())))
}

#[test]
fn licence_expressions_are_understood() {
    let allowed = BTreeSet::from(["MIT", "Zlib"]);
    for good in ["MIT", "GPL-3.0 OR MIT", "Unlicense/MIT", "(MIT OR X) AND Zlib"] {
        assert!(permitted(good, &allowed), "{good}");
    }
    for bad in ["none", "GPL-3.0", "MIT AND GPL-3.0", "GPL-3.0 OR LGPL-3.0"] {
        assert!(!permitted(bad, &allowed), "{bad}");
    }
}
