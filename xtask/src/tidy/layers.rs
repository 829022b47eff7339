//! Dependencies point down. A new arrow is a row here and a line in docs/architecture.md.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};

/// Each crate's folder and the crates of ours it may name.
const LAYERS: [(&str, &[&str]); 11] = [
    ("proto", &[]),
    ("core", &[]),
    ("kernels", &[]),
    ("models", &["penstock-core", "penstock-kernels"]),
    ("telemetry", &["penstock-core"]),
    (
        "engine",
        &["penstock-core", "penstock-models", "penstock-telemetry"],
    ),
    (
        "config",
        &[
            "penstock-core",
            "penstock-engine",
            "penstock-models",
            "penstock-telemetry",
        ],
    ),
    ("pipeline", &["penstock-core"]),
    (
        "server",
        &[
            "penstock-config",
            "penstock-core",
            "penstock-engine",
            "penstock-models",
            "penstock-pipeline",
            "penstock-proto",
            "penstock-telemetry",
        ],
    ),
    (
        "benches",
        &[
            "penstock",
            "penstock-config",
            "penstock-core",
            "penstock-engine",
            "penstock-kernels",
            "penstock-models",
            "penstock-proto",
            "penstock-telemetry",
        ],
    ),
    ("xtask", &[]),
];

/// Crates from outside that only some of ours may name: the wall between decisions and actions.
const WALLS: [(&str, &[&str]); 7] = [
    ("tokio", &["engine", "server", "benches"]),
    ("tonic", &["proto", "server", "benches"]),
    ("axum", &["server"]),
    ("rdkafka", &["server"]),
    ("metrics", &["telemetry", "benches"]),
    ("rayon", &["kernels", "models"]),
    ("candle-core", &["models", "kernels", "benches"]),
];

#[derive(serde::Deserialize)]
struct Manifest {
    #[serde(default)]
    dependencies: BTreeMap<String, toml::Value>,
    #[serde(default, rename = "dev-dependencies")]
    dev_dependencies: BTreeMap<String, toml::Value>,
}

/// Faults in the manifests of the crates.
pub fn check(root: &Path) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    for (folder, allowed) in LAYERS {
        let path = root.join(folder).join("Cargo.toml");
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let manifest: Manifest = toml::from_str(&text).with_context(|| path.display().to_string())?;
        for name in manifest
            .dependencies
            .keys()
            .chain(manifest.dev_dependencies.keys())
        {
            let ours = name == "penstock" || name.starts_with("penstock-");
            if ours && !allowed.contains(&name.as_str()) {
                faults.push(format!(
                    "{folder}/Cargo.toml: must not name {name}; it may name {allowed:?}"
                ));
            }
        }
        for (outside, rooms) in WALLS {
            if manifest.dependencies.contains_key(outside) && !rooms.contains(&folder) {
                faults.push(format!(
                    "{folder}/Cargo.toml: {outside} belongs in {rooms:?} alone"
                ));
            }
        }
        if folder == "core" && manifest.dependencies.keys().any(|name| name != "thiserror") {
            faults.push("core/Cargo.toml: core names only thiserror".into());
        }
    }
    Ok(faults)
}
