//! The examples: each file is a pipeline, and its own tests hold.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use penstock_pipeline::{Pipeline, test_case};

fn example(name: &str) -> (PathBuf, String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../examples")
        .join(name)
        .join("pipeline.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    (path, text)
}

fn check(name: &str, tests: usize) {
    let (path, text) = example(name);
    let pipeline = Arc::new(Pipeline::parse(&path, &text, None).unwrap_or_else(|error| panic!("{error}")));
    assert_eq!(pipeline.tests.len(), tests);
    for case in &pipeline.tests {
        let mismatches = test_case::run(&pipeline, case);
        let lines: Vec<String> = mismatches
            .into_iter()
            .map(|mismatch| mismatch.in_file(&path, &text).to_string())
            .collect();
        assert!(lines.is_empty(), "{}: {lines:#?}", case.name);
    }
}

#[test]
fn comments_hold() {
    check("comments", 3);
}

#[test]
fn fraud_holds() {
    check("fraud", 8);
}
