//! A model's description for the tests of the crates above.

use std::collections::BTreeMap;

use crate::{Family, ModelSpec, Problem, Task};

/// A model that says no more than a test needs.
pub fn spec(task: Task, labels: &[&str]) -> ModelSpec {
    ModelSpec {
        family: Family::ALL[0],
        task,
        labels: labels.iter().map(|&l| l.to_owned()).collect(),
        problem: Problem::SingleLabel,
        hidden: 4,
        layers: 1,
        heads: 1,
        vocabulary: 10,
        max_length: 16,
        pooling: None,
        pooling_assumed: false,
        normalize: false,
        prompts: BTreeMap::new(),
        default_prompt: None,
        parameters: 0,
        dtypes: BTreeMap::new(),
        parity_cases: 0,
    }
}
