//! Entities of every family, compared with transformers' token classification pipeline.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test's own functions are test code too"
)]

mod support;

use std::collections::BTreeMap;
use std::path::Path;

use penstock_models::{Aggregation, entities};
use serde::Deserialize;
use support::{family_folders, load, run};

/// Code points of the text, with label and score.
type Expected = (String, usize, usize, f32);

#[derive(Deserialize)]
struct File {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    text: String,
    /// Entities by the name of the strategy.
    #[serde(flatten)]
    strategies: BTreeMap<String, Vec<Expected>>,
}

fn check(folder: &Path) {
    let file = std::fs::read(folder.join("entities.json")).expect("entities.json");
    let File { cases } = serde_json::from_slice(&file).expect("entities.json");
    assert!(cases.len() >= 200, "{}: {} texts", folder.display(), cases.len());
    let mut loaded = load(folder, 128);
    for Case { text, strategies } in cases {
        let spanned = loaded.tokenizer.encode_spans(&text, true).expect("token ids");
        assert_eq!(
            spanned.ids,
            loaded.tokenizer.encode(&text, true).expect("token ids")
        );
        let logits = run(&mut loaded, &[spanned.ids.as_slice()]).remove(0);
        let labels = &loaded.spec.labels;
        let own = &logits[spanned.before * labels.len()..];
        assert_eq!(strategies.len(), Aggregation::ALL.len() - 1, "all but bioes");
        for (strategy, expected) in strategies {
            let strategy = Aggregation::named(&strategy).expect("a strategy");
            let found = entities(labels, own, &spanned.spans, strategy);
            let place = |byte: usize| text[..byte].chars().count();
            let names: Vec<_> = found
                .iter()
                .map(|one| (one.label, place(one.bytes.start), place(one.bytes.end)))
                .collect();
            let wanted: Vec<_> = expected
                .iter()
                .map(|(label, start, end, _)| (label.as_str(), *start, *end))
                .collect();
            let folder = folder.display();
            assert_eq!(names, wanted, "{folder} {strategy:?} {text:?}");
            for (one, (.., score)) in found.iter().zip(&expected) {
                let off = (one.score - score).abs();
                assert!(off < 1e-4, "{folder} {strategy:?} {text:?}: {one:?}, not {score}");
            }
        }
    }
}

#[test]
fn entities_of_every_family_equal_those_of_transformers() {
    let folders: Vec<_> = family_folders()
        .into_iter()
        .filter(|folder| folder.join("entities.json").exists())
        .collect();
    assert!(folders.len() >= 7, "{folders:?}");
    for folder in folders {
        check(&folder);
    }
}
