//! Reference vectors, and their comparison with a loaded model.

use std::io::Write;
use std::path::{Path, PathBuf};

use penstock_core::{PackedTokens, Reply};
use penstock_models::{Device, LoadOptions, Loaded, Precision, Threads, normalize};
use serde::Deserialize;

/// A reference file: `models/reference/README.md` says how it is made.
#[derive(Deserialize)]
pub struct Reference {
    pub task: String,
    pub max_length: usize,
    pub tolerance: f32,
    pub cases: Vec<Case>,
}

/// One text with the ids and outputs of the original.
#[derive(Deserialize)]
pub struct Case {
    pub text: String,
    pub ids: Vec<u32>,
    pub output: Vec<f32>,
}

pub fn reference(file: &Path) -> Reference {
    let text = std::fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
}

/// A path below `models/`.
pub fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Every folder of `tests/families`, in the order of their names.
pub fn family_folders() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = std::fs::read_dir(here("tests/families"))
        .expect("models/tests/families")
        .map(|entry| entry.expect("an entry of models/tests/families").path())
        .filter(|path| path.is_dir())
        .collect();
    folders.sort();
    folders
}

/// The folder of all-MiniLM-L6-v2, or `None` after a line that says how to get it.
pub fn minilm() -> Option<PathBuf> {
    let folder = std::env::var_os("PENSTOCK_MINILM")
        .map_or_else(|| here("../.cache/models/all-MiniLM-L6-v2"), PathBuf::from);
    if folder.join("model.safetensors").exists() {
        return Some(folder);
    }
    // The capture of test output is bypassed, so that a skip is always visible.
    let _ = writeln!(
        std::io::stderr(),
        "SKIPPED: {} has no model; models/fetch puts it there",
        folder.display()
    );
    None
}

/// Loads in f32 without the parity check, with the maximum length of the reference.
pub fn load(folder: &Path, max_length: usize) -> Loaded {
    load_in(Precision::F32, folder, max_length)
}

/// Loads in the given precision.
pub fn load_in(precision: Precision, folder: &Path, max_length: usize) -> Loaded {
    let options = LoadOptions {
        device: Device::Cpu {
            threads: Some(Threads::new(2).unwrap()),
            precision,
        },
        max_length: Some(max_length),
        check_parity: false,
        allow_pickle: true,
        ..LoadOptions::default()
    };
    penstock_models::load(folder, &options).unwrap_or_else(|e| panic!("{e}"))
}

/// Runs `texts` as one batch and returns the values that the original calls its output.
pub fn run(loaded: &mut Loaded, texts: &[&[u32]]) -> Vec<Vec<f32>> {
    let batch = PackedTokens::from_texts(texts.iter().copied());
    let replies = loaded.model.forward(&batch).expect("a forward pass");
    assert_eq!(replies.len(), texts.len());
    let normalized = loaded.spec.normalize;
    replies
        .into_iter()
        .map(|reply| match reply {
            Reply::Classes { logits, .. } => logits,
            Reply::Embedding(mut vector) => {
                if normalized {
                    normalize(&mut vector);
                }
                vector
            }
        })
        .collect()
}

/// Cosine of the angle between two outputs.
pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot =
        |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum() };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// The largest absolute difference; infinite where a value is not a number.
pub fn difference(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let one = |(f, e): (&f32, &f32)| {
        if f.is_finite() {
            (f - e).abs()
        } else {
            f32::INFINITY
        }
    };
    found.iter().zip(expected).map(one).fold(0.0, f32::max)
}

/// The position of the largest value.
pub fn largest(values: &[f32]) -> usize {
    (0..values.len())
        .max_by(|&a, &b| values[a].total_cmp(&values[b]))
        .expect("values")
}

pub mod broken;
