//! Every family and both default models against the original implementations, and against themselves in
//! other batches.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test's own functions are test code too"
)]

mod support;

use std::path::Path;

use penstock_models::{Family, Task};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use support::{Reference, difference, family_folders, here, largest, load, minilm, reference, run};

/// Ids equal, outputs within the reference's tolerance, labels the same. Returns the largest difference.
fn check(folder: &Path, reference: &Reference) -> f32 {
    let mut loaded = load(folder, reference.max_length);
    assert_eq!(loaded.spec.task.name(), reference.task, "{}", folder.display());
    assert!(
        reference.cases.len() >= 200,
        "{} has {} texts",
        folder.display(),
        reference.cases.len()
    );
    assert!(
        reference.tolerance <= 1e-4,
        "{} allows {}",
        folder.display(),
        reference.tolerance
    );
    let mut most = 0_f32;
    for (i, case) in reference.cases.iter().enumerate() {
        let ids = loaded.tokenizer.encode(&case.text, true).expect("token ids");
        assert_eq!(
            ids.as_slice(),
            case.ids,
            "{} text {i}: {:.200}",
            folder.display(),
            case.text
        );
        let bound = loaded.tokenizer.tokens_bound(case.text.len());
        assert!(
            bound >= ids.len(),
            "{} text {i}: {} tokens, bound {bound}",
            folder.display(),
            ids.len()
        );
        let output = run(&mut loaded, &[ids.as_slice()]).remove(0);
        let distance = difference(&output, &case.output);
        assert!(
            distance <= reference.tolerance,
            "{} text {i}: off by {distance:e}",
            folder.display()
        );
        if loaded.spec.task == Task::SequenceClassification {
            assert_eq!(
                largest(&output),
                largest(&case.output),
                "{} text {i}: label",
                folder.display()
            );
        }
        most = most.max(distance);
    }
    println!(
        "{}: {} texts, largest difference {most:e}",
        folder.display(),
        reference.cases.len()
    );
    most
}

/// The same texts, shuffled and cut into batches of random sizes, give the same outputs.
fn check_repacked(folder: &Path, reference: &Reference, rounds: u64) {
    let mut loaded = load(folder, reference.max_length);
    let texts: Vec<&[u32]> = reference.cases.iter().map(|case| case.ids.as_slice()).collect();
    let alone: Vec<Vec<f32>> = texts
        .iter()
        .map(|text| run(&mut loaded, &[text]).remove(0))
        .collect();
    for seed in 0..rounds {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut order: Vec<usize> = (0..texts.len()).collect();
        order.shuffle(&mut rng);
        let mut rest = order.as_slice();
        while !rest.is_empty() {
            let (batch, behind) = rest.split_at(rng.random_range(1..=rest.len().min(48)));
            rest = behind;
            let packed: Vec<&[u32]> = batch.iter().map(|&i| texts[i]).collect();
            for (output, &i) in run(&mut loaded, &packed).iter().zip(batch) {
                let distance = difference(output, &alone[i]);
                assert!(
                    distance <= 1e-5,
                    "{} seed {seed} text {i}: off by {distance:e}",
                    folder.display()
                );
            }
        }
    }
}

#[test]
fn every_family_computes_what_the_original_computes() {
    let folders = family_folders();
    for folder in &folders {
        check(folder, &reference(&folder.join("parity.json")));
    }
    for family in Family::ALL {
        let covered = folders
            .iter()
            .any(|f| penstock_models::inspect(f).expect("a spec").family == family);
        assert!(
            covered,
            "{} has no folder in models/tests/families",
            family.name()
        );
    }
}

#[test]
fn every_family_gives_the_same_in_any_batch() {
    for folder in family_folders() {
        check_repacked(&folder, &reference(&folder.join("parity.json")), 4);
    }
}

#[test]
fn the_sentiment_model_computes_what_transformers_computes() {
    let vectors = reference(&here("tests/vectors/sentiment.json"));
    check(&here("sentiment"), &vectors);
    check_repacked(&here("sentiment"), &vectors, 1);
}

#[test]
fn minilm_computes_what_sentence_transformers_computes() {
    let Some(folder) = minilm() else { return };
    let vectors = reference(&here("tests/vectors/all-MiniLM-L6-v2.json"));
    check(&folder, &vectors);
    check_repacked(&folder, &vectors, 1);
}
