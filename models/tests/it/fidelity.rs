//! Every family and both default models, compared with the original implementations and with themselves in other
//! batches.

use std::io::Write;
use std::path::Path;

use crate::support::{
    Reference, cosine, difference, family_folders, here, largest, load_in, minilm, reference, run,
};
use penstock_models::{Family, Format, LoadOptions, Precision, Task};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

/// Compares ids, labels and outputs with the reference, within its tolerance. Returns the largest difference.
fn check(folder: &Path, reference: &Reference) -> f32 {
    let mut loaded = load_in(Precision::F32, folder, reference.max_length);
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

/// bf16 by each way of this processor, and int8.
fn rounded() -> Vec<Precision> {
    if let Err(error) = Precision::bf16() {
        // The capture of test output is bypassed, so that a skip is always visible.
        let _ = writeln!(std::io::stderr(), "SKIPPED: {error}");
    }
    let mut all = Precision::bf16_supported();
    all.push(Precision::int8());
    all
}

/// Checks the mean cosine with the outputs of the original, and the share of equal labels.
///
/// Labels are compared for a `trained` model alone: with random weights the logits of many texts are almost equal.
fn check_rounded(folder: &Path, reference: &Reference, trained: bool) {
    for precision in rounded() {
        let (cosine_min, labels_min) = match precision.format() {
            Format::F32 => panic!("f32 is not rounded"),
            Format::Bf16 => (0.999, 0.995),
            Format::Int8 => (0.99, 0.99),
        };
        let mut loaded = load_in(precision, folder, reference.max_length);
        let (mut sum, mut least, mut agreeing) = (0.0, 1f64, 0);
        for case in &reference.cases {
            let output = run(&mut loaded, &[case.ids.as_slice()]).remove(0);
            let cosine = cosine(&output, &case.output);
            (sum, least) = (sum + cosine, least.min(cosine));
            agreeing += usize::from(largest(&output) == largest(&case.output));
        }
        let texts = reference.cases.len() as f64;
        let (mean, share) = (sum / texts, agreeing as f64 / texts);
        let name = format!("{} in {}", folder.display(), precision.name());
        println!("{name}: cosine {mean:.5} (least {least:.5}), labels {share:.4}");
        assert!(mean >= cosine_min, "{name}: the mean cosine is {mean}");
        if trained && loaded.spec.task == Task::SequenceClassification {
            assert!(share >= labels_min, "{name}: {share} of the labels agree");
        }
    }
}

/// Checks that the texts give the same outputs when shuffled and cut into batches of random sizes.
fn check_repacked(folder: &Path, reference: &Reference, rounds: u64) {
    check_repacked_in(Precision::F32, folder, reference, rounds, 1e-5);
    for precision in rounded() {
        check_repacked_in(precision, folder, reference, 1, 0.0);
    }
}

fn check_repacked_in(
    precision: Precision,
    folder: &Path,
    reference: &Reference,
    rounds: u64,
    tolerance: f32,
) {
    let mut loaded = load_in(precision, folder, reference.max_length);
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
                    distance <= tolerance,
                    "{} in {} seed {seed} text {i}: off by {distance:e}",
                    folder.display(),
                    precision.name()
                );
            }
        }
    }
}

fn allowing_pickle() -> LoadOptions {
    LoadOptions {
        allow_pickle: true,
        ..LoadOptions::default()
    }
}

#[test]
fn every_family_equals_the_original() {
    let folders = family_folders();
    for folder in &folders {
        check(folder, &reference(&folder.join("parity.json")));
    }
    for family in Family::ALL {
        let covered = folders.iter().any(|f| {
            penstock_models::inspect(f, &allowing_pickle())
                .expect("a spec")
                .family
                == family
        });
        assert!(
            covered,
            "{} has no folder in models/tests/families",
            family.name()
        );
    }
}

#[test]
fn every_family_is_near_the_original_in_bf16_and_int8() {
    for folder in family_folders() {
        check_rounded(&folder, &reference(&folder.join("parity.json")), false);
    }
}

#[test]
fn every_family_gives_the_same_in_any_batch() {
    for folder in family_folders() {
        check_repacked(&folder, &reference(&folder.join("parity.json")), 4);
    }
}

#[test]
fn the_sentiment_model_equals_transformers() {
    let vectors = reference(&here("tests/vectors/sentiment.json"));
    check(&here("sentiment"), &vectors);
    check_rounded(&here("sentiment"), &vectors, true);
    check_repacked(&here("sentiment"), &vectors, 1);
}

#[test]
fn minilm_equals_sentence_transformers() {
    let Some(folder) = minilm() else { return };
    let vectors = reference(&here("tests/vectors/all-MiniLM-L6-v2.json"));
    check(&folder, &vectors);
    check_rounded(&folder, &vectors, true);
    check_repacked(&folder, &vectors, 1);
}
