//! Folders in which a file beside the weights changes ids or vectors: each gives what the original gives.
//!
//! The variants and their outputs are made by `models/reference/variants.py`. Folders that are refused instead stand
//! in `folders.rs` and beside the code that refuses them.

use std::collections::BTreeMap;
use std::path::Path;

use crate::support::broken::Copy;
use crate::support::{Case, difference, here, run};
use penstock_models::{Device, LoadOptions, Precision, Prompt, Threads};
use serde::Deserialize;

/// The largest difference of a value that is accepted, as for every model in f32.
const TOLERANCE: f32 = 1e-4;

#[derive(Deserialize)]
struct Variants {
    variants: Vec<Variant>,
}

#[derive(Deserialize)]
struct Variant {
    name: String,
    files: BTreeMap<String, Content>,
    cases: Vec<Case>,
}

/// A file of a variant: its text, or the file of a family that it equals.
#[derive(Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Same { of: String },
}

fn variants() -> Vec<Variant> {
    let text = std::fs::read_to_string(here("tests/vectors/variants.json")).unwrap();
    let Variants { variants } = serde_json::from_str(&text).unwrap();
    variants
}

fn write(variant: &Variant, folder: &Path) {
    for (name, content) in &variant.files {
        let to = folder.join(name);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        match content {
            Content::Text(text) => std::fs::write(to, text).unwrap(),
            Content::Same { of } => drop(std::fs::copy(here("tests/families").join(of), to).unwrap()),
        }
    }
}

fn options() -> LoadOptions {
    LoadOptions {
        device: Device::Cpu {
            threads: Some(Threads::new(1).unwrap()),
            precision: Precision::F32,
        },
        ..LoadOptions::default()
    }
}

#[test]
fn every_variant_of_a_folder_equals_the_original() {
    let variants = variants();
    assert!(variants.len() >= 30, "{} variants", variants.len());
    for variant in &variants {
        let folder = tempfile::tempdir().unwrap();
        write(variant, folder.path());
        let name = &variant.name;
        let mut loaded =
            penstock_models::load(folder.path(), &options()).unwrap_or_else(|e| panic!("{name}: {e}"));
        for case in &variant.cases {
            let ids = loaded.tokenizer.encode(&case.text, true).unwrap();
            assert_eq!(ids.as_slice(), case.ids, "{name}: {:?}", case.text);
            let bound = loaded.tokenizer.tokens_bound(case.text.len());
            assert!(
                bound >= ids.len(),
                "{name}: {:?} has {} tokens, bound {bound}",
                case.text,
                ids.len()
            );
            let output = run(&mut loaded, &[ids.as_slice()]).remove(0);
            let distance = difference(&output, &case.output);
            assert!(
                distance <= TOLERANCE,
                "{name}: {:?} is off by {distance:e}",
                case.text
            );
        }
        let spec = penstock_models::inspect(folder.path(), &options()).unwrap();
        assert_eq!(format!("{spec:?}"), format!("{:?}", loaded.spec), "{name}");
    }
}

#[test]
fn labels_and_prompts_of_a_variant_are_described() {
    let described = |name: &str| {
        let folder = tempfile::tempdir().unwrap();
        write(variants().iter().find(|v| v.name == name).unwrap(), folder.path());
        penstock_models::load(folder.path(), &options()).unwrap()
    };
    assert_eq!(described("labels_that_are_numbers").spec.labels, ["0", "1", "2"]);
    let loaded = described("default_prompt");
    assert_eq!(loaded.spec.default_prompt.as_deref(), Some("query"));
    assert_eq!(loaded.spec.prompts["document"], "nobody: ");
    let document = loaded.tokenizer.with_prompt(Prompt::Named("document")).unwrap();
    let plain = loaded.tokenizer.with_prompt(Prompt::Text("")).unwrap();
    assert_eq!(
        document.encode("was late", true),
        plain.encode("nobody: was late", true)
    );
}

/// Expects that a changed copy of `family` is refused with a message that has every part, by load and inspect alike.
fn refused(family: &str, change: impl FnOnce(&Copy), parts: &[&str]) {
    let copy = Copy::of(family);
    change(&copy);
    let loaded = penstock_models::load(copy.path(), &options()).map(|_| ());
    let inspected = penstock_models::inspect(copy.path(), &options()).map(|_| ());
    for result in [loaded, inspected] {
        let message = result.expect_err(&parts.join(", ")).to_string();
        for part in parts {
            assert!(message.contains(part), "\"{message}\" lacks \"{part}\"");
        }
    }
}

#[test]
fn a_prompt_that_cannot_be_left_out_of_the_mean_is_refused() {
    let excluded = |copy: &Copy| {
        copy.json("1_Pooling/config.json", r#"{"include_prompt":false}"#);
    };
    let default = br#"{"prompts":{"query":"a film "},"default_prompt_name":"query"}"#;
    refused(
        "bert-embedding-mean",
        |copy| {
            excluded(copy);
            copy.write("config_sentence_transformers.json", default);
        },
        &[
            "1_Pooling/config.json: include_prompt is false",
            "true for a model with a default prompt",
        ],
    );
    refused(
        "bert",
        |copy| copy.write("config_sentence_transformers.json", default),
        &["default_prompt_name is query; supported: none for sequence-classification"],
    );
    let copy = Copy::of("bert-embedding-mean");
    excluded(&copy);
    assert!(
        penstock_models::load(copy.path(), &options()).is_ok(),
        "without a prompt it changes nothing"
    );
}

#[test]
fn weights_and_code_that_the_folder_brings_along_are_refused() {
    refused(
        "bert",
        |copy| copy.write("adapter_config.json", b"{}"),
        &["adapter_config.json: adapters are not supported"],
    );
    refused(
        "bert",
        |copy| {
            let own = r#"{"auto_map":{"AutoModelForSequenceClassification":"own.Own"}}"#;
            copy.json("config.json", own);
        },
        &["auto_map is AutoModelForSequenceClassification"],
    );
    let japanese = r#"{"tokenizer_class":"BertJapaneseTokenizer"}"#;
    refused(
        "bert-vocabulary",
        |copy| copy.json("tokenizer_config.json", japanese),
        &["tokenizer_config.json: tokenizer_class is BertJapaneseTokenizer; supported: BertTokenizer"],
    );
    refused(
        "bert",
        |copy| {
            let text = std::fs::read_to_string(copy.file("config.json")).unwrap();
            let eps = text.replace("\"layer_norm_eps\": 1e-12", "\"layer_norm_eps\": NaN");
            copy.write("config.json", eps.as_bytes());
        },
        &["config.json: layer_norm_eps: invalid type: string \"NaN\""],
    );
}

#[test]
fn weights_in_a_pickle_are_refused_with_the_switch_that_allows_them() {
    refused(
        "bert-pickle",
        |_| {},
        &[
            "pytorch_model.bin: weights in a pickle are not read",
            "allow_pickle = true under [[model]], or --allow-pickle",
        ],
    );
    let allowed = LoadOptions {
        allow_pickle: true,
        ..options()
    };
    assert!(penstock_models::load(Copy::of("bert-pickle").path(), &allowed).is_ok());
}

#[test]
fn inspect_refuses_what_load_refuses() {
    let weight = "bert.encoder.layer.1.output.dense.weight";
    refused(
        "bert",
        |c| c.remove("tokenizer.json"),
        &["tokenizer.json (or vocab.txt) is missing"],
    );
    refused(
        "bert",
        |c| c.tensors(|t| drop(t.remove(weight))),
        &[weight, "is missing"],
    );
    refused(
        "bert",
        |c| c.json("config.json", r#"{"intermediate_size":100}"#),
        &["config.json makes it [100, 64]"],
    );
    refused(
        "bert",
        |c| c.tensors(|t| t.get_mut("classifier.bias").unwrap().dtype = safetensors::Dtype::I32),
        &["the type of tensor classifier.bias is I32"],
    );
    refused(
        "bert",
        |c| c.tensors(|t| drop(t.remove("classifier.weight"))),
        &["tensor classifier.weight is missing"],
    );
    refused(
        "mpnet",
        |c| c.tensors(|t| drop(t.remove("mpnet.encoder.relative_attention_bias.weight"))),
        &["relative_attention_bias.weight is missing"],
    );
}

#[cfg(unix)]
#[test]
fn a_pipe_or_a_device_in_place_of_a_file_is_refused_without_reading_it() {
    for name in [
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "model.safetensors",
        "parity.json",
    ] {
        refused(
            "bert",
            |copy| {
                copy.remove(name);
                let made = std::process::Command::new("mkfifo").arg(copy.file(name)).status();
                assert!(made.unwrap().success());
            },
            &[name, "it is a pipe or a device, not a file"],
        );
    }
}

/// A file that is cut while it is read gives an error; a mapped one would end the process by a signal.
#[test]
fn weights_that_are_cut_while_they_are_read_are_an_error() {
    let copy = Copy::of("bert");
    let file = copy.file("model.safetensors");
    let whole = std::fs::read(&file).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                // In place: truncated, then written again.
                std::fs::write(&file, &whole[..whole.len() / 2]).unwrap();
                std::fs::write(&file, &whole).unwrap();
            }
        });
        let outcomes: Vec<bool> = (0..200)
            .map(|_| penstock_models::load(copy.path(), &options()).is_ok())
            .collect();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        println!(
            "{} of 200 loads were whole",
            outcomes.iter().filter(|ok| **ok).count()
        );
    });
    assert!(penstock_models::load(copy.path(), &options()).is_ok());
}
