//! Units of compilation: the tests compile no crate a second time because they turn on other features of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// The program as `./quickstart` and the image build it.
const PROGRAM: [&str; 4] = ["build", "--release", "-p", "penstock"];
/// The tests as `./test` builds them.
const TESTS: [&str; 4] = ["test", "--no-run", "--release", "--workspace"];
/// Format of cargo's unit graph that is read here.
const VERSION: u32 = 1;

/// Everything that one command of cargo compiles.
#[derive(Deserialize)]
struct UnitGraph {
    version: u32,
    units: Vec<Unit>,
}

/// One run of the compiler.
#[derive(Deserialize)]
struct Unit {
    pkg_id: String,
    target: Target,
    profile: Profile,
    platform: Option<String>,
    mode: String,
    features: BTreeSet<String>,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

/// The optimisation tells a crate of the program from the same crate of a build script.
#[derive(Deserialize)]
struct Profile {
    opt_level: String,
}

#[derive(Deserialize)]
struct Dependency {
    /// Place among the graph's units.
    index: usize,
}

/// Units with the same key and the same features are compiled once.
type Key<'a> = (&'a str, &'a str, &'a [String], &'a str, Option<&'a str>);

impl Unit {
    fn key(&self) -> Key<'_> {
        (
            &self.pkg_id,
            &self.target.name,
            &self.target.kind,
            &self.profile.opt_level,
            self.platform.as_deref(),
        )
    }

    /// Name and version, or the path where the name follows from it.
    fn package(&self) -> &str {
        self.pkg_id.rsplit(['/', '#']).next().unwrap_or(&self.pkg_id)
    }
}

/// Adds a fault for every crate that the tests compile with other features than the program does.
pub fn check(root: &Path, faults: &mut Vec<String>) -> Result<()> {
    let program = graph(root, &PROGRAM)?;
    let tests = graph(root, &TESTS)?;
    compare(&program, &tests, faults);
    Ok(())
}

/// Asks cargo; nothing is compiled. The option is unstable, so cargo is told to take it as its developers do.
fn graph(root: &Path, command: &[&str]) -> Result<UnitGraph> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let asked = format!("cargo {} --unit-graph", command.join(" "));
    let output = Command::new(cargo)
        .args(command)
        .args(["--unit-graph", "-Z", "unstable-options"])
        .env("RUSTC_BOOTSTRAP", "1")
        .current_dir(root)
        .output()
        .with_context(|| asked.clone())?;
    ensure!(
        output.status.success(),
        "{asked} failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    parse(&output.stdout).with_context(|| asked.clone())
}

fn parse(json: &[u8]) -> Result<UnitGraph> {
    let graph: UnitGraph = serde_json::from_slice(json)?;
    ensure!(
        graph.version == VERSION,
        "unit graph of version {}, but xtask reads version {VERSION}",
        graph.version
    );
    Ok(graph)
}

/// Adds a fault for each crate of both graphs whose features differ.
fn compare(program: &UnitGraph, tests: &UnitGraph, faults: &mut Vec<String>) {
    let of_program = features(program);
    let differs = |unit: &Unit| {
        let known = of_program.get(&unit.key());
        known.is_some_and(|known| !known.contains(&unit.features))
    };
    let edges = edges(program);
    for (index, unit) in tests.units.iter().enumerate() {
        // A build script is compiled and run with the features of its crate, which is reported itself.
        if unit.mode != "build" || unit.target.kind == ["custom-build"] || !differs(unit) {
            continue;
        }
        let nearest = of_program
            .get(&unit.key())
            .into_iter()
            .flatten()
            .min_by_key(|known| known.symmetric_difference(&unit.features).count());
        let difference = nearest.map(|known| difference(known, &unit.features));
        let dependents = || {
            let all = tests.units.iter();
            all.filter(|d| d.dependencies.iter().any(|dependency| dependency.index == index))
        };
        // Features come from a dependent that the program lacks, or from one that differs itself.
        let mut askers: BTreeSet<&str> = dependents()
            .filter(|d| differs(d) || !edges.contains(&(d.pkg_id.as_str(), unit.pkg_id.as_str())))
            .map(Unit::package)
            .collect();
        if askers.is_empty() {
            askers = dependents().map(Unit::package).collect();
        }
        let askers: Vec<&str> = askers.into_iter().collect();
        faults.push(format!(
            "Cargo.toml: {} is compiled a second time for the tests, with other features than in the program: {}; \
             asked for by {}. Turn off what is not needed, or ask for the same everywhere \
             (docs/decisions/2026-12-01-one-unit-graph.md)",
            unit.package(),
            difference.unwrap_or_default(),
            askers.join(", ")
        ));
    }
}

/// The sets of features with which each unit is compiled.
fn features(graph: &UnitGraph) -> BTreeMap<Key<'_>, BTreeSet<&BTreeSet<String>>> {
    let mut features: BTreeMap<Key<'_>, BTreeSet<&BTreeSet<String>>> = BTreeMap::new();
    for unit in graph.units.iter().filter(|unit| unit.mode == "build") {
        features.entry(unit.key()).or_default().insert(&unit.features);
    }
    features
}

/// Pairs of packages of which the first names the second.
fn edges(graph: &UnitGraph) -> BTreeSet<(&str, &str)> {
    let mut edges = BTreeSet::new();
    for unit in &graph.units {
        for dependency in &unit.dependencies {
            if let Some(named) = graph.units.get(dependency.index) {
                edges.insert((unit.pkg_id.as_str(), named.pkg_id.as_str()));
            }
        }
    }
    edges
}

/// `+more -fewer`, by name.
fn difference(before: &BTreeSet<String>, after: &BTreeSet<String>) -> String {
    let more = after.difference(before).map(|name| format!("+{name}"));
    let fewer = before.difference(after).map(|name| format!("-{name}"));
    more.chain(fewer).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A unit as cargo writes it: crate, kind and mode, features, places of what it names.
    fn unit(name: &str, kind: &str, mode: &str, features: &str, dependencies: &str) -> String {
        format!(
            r#"{{"pkg_id": "registry+https://index#{name}@1.0.0", "target": {{"name": "{name}", "kind": ["{kind}"]}},
                "profile": {{"name": "release", "opt_level": "3"}}, "platform": null, "mode": "{mode}",
                "features": [{features}], "dependencies": [{dependencies}]}}"#
        )
    }

    fn graph(units: &[String]) -> UnitGraph {
        parse(format!(r#"{{"version": 1, "units": [{}], "roots": []}}"#, units.join(",")).as_bytes()).unwrap()
    }

    fn library(name: &str, features: &str, dependencies: &str) -> String {
        unit(name, "lib", "build", features, dependencies)
    }

    fn faults(program: &[String], tests: &[String]) -> Vec<String> {
        let mut faults = Vec::new();
        compare(&graph(program), &graph(tests), &mut faults);
        faults
    }

    fn on(name: &str) -> String {
        format!(r#"{{"index": {name}}}"#)
    }

    #[test]
    fn a_crate_with_other_features_is_named_with_what_asks_for_them() {
        let program = [
            library("smallvec", r#""std""#, ""),
            library("parking_lot", "", &on("0")),
        ];
        let tests = [
            library("smallvec", r#""union", "std""#, ""),
            library("parking_lot", "", &on("0")),
            library("rten-tensor", "", &on("0")),
        ];
        let found = faults(&program, &tests);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].contains("smallvec@1.0.0 is compiled a second time"),
            "{found:?}"
        );
        assert!(
            found[0].contains(": +union; asked for by rten-tensor@1.0.0. "),
            "{found:?}"
        );
    }

    #[test]
    fn a_dependency_of_tests_alone_is_an_asker() {
        let program = [
            library("quanta", "", ""),
            library("metrics", "", &on("0")),
            library("telemetry", "", &on("1")),
        ];
        let tests = [
            library("quanta", r#""default""#, ""),
            library("metrics", "", &on("0")),
            library("telemetry", "", &on("1")),
            unit(
                "telemetry",
                "lib",
                "test",
                "",
                &format!("{}, {}", on("0"), on("1")),
            ),
        ];
        let found = faults(&program, &tests);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].contains("+default; asked for by telemetry@1.0.0. "),
            "{found:?}"
        );
    }

    #[test]
    fn features_that_pass_through_a_crate_are_followed() {
        let program = [library("inner", "", ""), library("outer", r#""fast""#, &on("0"))];
        let tests = [
            library("inner", r#""deep""#, ""),
            library("outer", r#""deep""#, &on("0")),
            library("asker", "", &on("1")),
        ];
        let found = faults(&program, &tests);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(
            found[0].contains("inner@1.0.0") && found[0].contains("asked for by outer@"),
            "{found:?}"
        );
        assert!(found[1].contains("+deep -fast; asked for by asker@"), "{found:?}");
    }

    #[test]
    fn crates_of_the_tests_alone_and_equal_features_are_no_fault() {
        let program = [library("serde", r#""std", "derive""#, "")];
        let tests = [
            library("serde", r#""derive", "std""#, ""),
            library("proptest", r#""std""#, &on("0")),
            unit("serde", "lib", "test", "", ""),
        ];
        assert_eq!(faults(&program, &tests), Vec::<String>::new());
    }

    #[test]
    fn another_format_of_the_graph_is_refused() {
        let error = parse(br#"{"version": 2, "units": []}"#).err().unwrap();
        assert_eq!(
            error.to_string(),
            "unit graph of version 2, but xtask reads version 1"
        );
    }
}
