//! Public type names: each is defined once in a crate, so that a reader who sees it knows which one is meant.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Crates in which the rule holds. A crate that has resolved its last double name gets a row.
const CRATES: [&str; 9] = [
    "config",
    "core",
    "engine",
    "models",
    "pipeline",
    "proto",
    "server",
    "telemetry",
    "xtask",
];

/// Words that define a type.
const KINDS: [&str; 5] = ["struct", "enum", "trait", "type", "union"];

/// Adds a fault for every public type whose name its crate has defined before.
pub fn check(root: &Path, files: &[PathBuf], faults: &mut Vec<String>) -> Result<()> {
    for folder in CRATES {
        let sources = Path::new(folder).join("src");
        let mut texts = Vec::new();
        for file in files.iter().filter(|f| f.starts_with(&sources) && is_rust(f)) {
            let text =
                std::fs::read_to_string(root.join(file)).with_context(|| file.display().to_string())?;
            texts.push((file.as_path(), text));
        }
        texts.sort();
        check_crate(&texts, faults);
    }
    Ok(())
}

fn is_rust(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == "rs")
}

/// Adds the faults of one crate's files.
fn check_crate(texts: &[(&Path, String)], faults: &mut Vec<String>) {
    let mut defined: BTreeMap<&str, String> = BTreeMap::new();
    for (file, text) in texts {
        for (number, line) in text.lines().enumerate() {
            let Some(name) = public_type(line) else {
                continue;
            };
            let place = format!("{}:{}", file.display(), number + 1);
            match defined.get(name) {
                Some(first) => faults.push(format!(
                    "{place}: public type {name} is defined at {first} too: rename one of them"
                )),
                None => {
                    defined.insert(name, place);
                }
            }
        }
    }
}

/// The name of the type that a line defines for other files, `pub(crate)` and `pub(super)` included.
fn public_type(line: &str) -> Option<&str> {
    let rest = line.trim_start().strip_prefix("pub")?;
    let rest = match rest.strip_prefix('(') {
        Some(limited) => limited.split_once(')')?.1,
        None => rest,
    };
    let (kind, rest) = rest.strip_prefix(' ')?.split_once(' ')?;
    let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
    let name = &rest[..end.unwrap_or(rest.len())];
    (KINDS.contains(&kind) && !name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(texts: &[(&str, &str)]) -> Vec<String> {
        let mut faults = Vec::new();
        let owned: Vec<(&Path, String)> = texts
            .iter()
            .map(|(file, text)| (Path::new(*file), (*text).to_owned()))
            .collect();
        check_crate(&owned, &mut faults);
        faults
    }

    #[test]
    fn a_second_definition_is_named_with_the_first() {
        let found = faults(&[
            ("core/src/a.rs", "//! Head.\npub struct Load {"),
            ("core/src/b.rs", "//! Head.\n\n    pub(crate) enum Load<'a> {"),
        ]);
        let expected =
            "core/src/b.rs:3: public type Load is defined at core/src/a.rs:2 too: rename one of them";
        assert_eq!(found, [expected]);
    }

    #[test]
    fn private_types_uses_and_functions_may_share_a_name() {
        let found = faults(&[
            ("core/src/a.rs", "pub trait Sink: Send {"),
            ("core/src/b.rs", "struct Sink;"),
            (
                "core/src/c.rs",
                "pub use a::Sink;\npub fn Sink() {}\npub struct Sinks;",
            ),
        ]);
        assert_eq!(found, Vec::<String>::new());
    }

    #[test]
    fn a_type_is_found_by_its_keyword() {
        for (line, name) in [
            ("pub struct Unit;", Some("Unit")),
            ("pub struct Tuple(u32);", Some("Tuple")),
            ("pub(in crate::a) type Outcome = ();", Some("Outcome")),
            ("pub fn new() {", None),
            ("pub mod load;", None),
            ("pub const LOAD: u32 = 1;", None),
            ("published struct A", None),
        ] {
            assert_eq!(public_type(line), name, "{line}");
        }
    }
}
