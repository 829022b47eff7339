//! Folders that cannot be served, each with its error, and folders that are only unusual.

use std::path::Path;

use crate::support::broken::{Copy, Tensor};
use crate::support::{difference, load, reference, run};
use penstock_core::{PackedTokens, Reply};
use penstock_models::{Device, LoadOptions, Precision, Task, Threads};
use safetensors::tensor::Dtype;

fn options() -> LoadOptions {
    LoadOptions {
        device: Device::Cpu {
            threads: Some(Threads::new(1).unwrap()),
            precision: Precision::F32,
        },
        check_parity: false,
        allow_pickle: true,
        ..LoadOptions::default()
    }
}

/// Expects that loading `folder` fails with a message that contains every part.
fn refused(folder: &Path, parts: &[&str]) {
    refused_with(folder, &options(), parts);
}

fn refused_with(folder: &Path, options: &LoadOptions, parts: &[&str]) {
    let message = match penstock_models::load(folder, options) {
        Ok(_) => panic!("{} was loaded; expected: {parts:?}", folder.display()),
        Err(e) => e.to_string(),
    };
    for part in parts {
        assert!(message.contains(part), "\"{message}\" lacks \"{part}\"");
    }
}

/// Breaks a copy of the BERT classifier and expects a message with every part.
fn broken(change: impl FnOnce(&Copy), parts: &[&str]) {
    let copy = Copy::of("bert");
    change(&copy);
    refused(copy.path(), parts);
}

const WORD: &str = "bert.embeddings.word_embeddings.weight";

#[test]
fn missing_files_are_named() {
    refused(
        Path::new("/nonexistent"),
        &["/nonexistent: config.json is missing"],
    );
    broken(|c| c.remove("config.json"), &["config.json is missing"]);
    broken(
        |c| c.remove("tokenizer.json"),
        &["tokenizer.json (or vocab.txt) is missing"],
    );
    broken(
        |c| c.remove("model.safetensors"),
        &[
            "model.safetensors or model.safetensors.index.json or pytorch_model.bin",
            "is missing",
        ],
    );
}

#[test]
fn bad_json_is_named_with_its_place() {
    for name in [
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "parity.json",
    ] {
        broken(|c| c.write(name, b"{\"a\": "), &[name, "line 1 column"]);
        broken(|c| c.write(name, b"\xff\xfe"), &[name]);
    }
}

#[test]
fn an_unsupported_model_is_refused_with_the_supported_ones() {
    let supported = "supported are bert, distilbert, roberta, xlm-roberta, camembert, mpnet";
    broken(
        |c| c.json("config.json", r#"{"model_type":"gpt2"}"#),
        &["\"gpt2\" is not supported", supported],
    );
    broken(
        |c| {
            c.json(
                "config.json",
                r#"{"architectures":["BertForTokenClassification"]}"#,
            );
        },
        &[
            "architectures is BertForTokenClassification",
            "ForSequenceClassification",
        ],
    );
}

#[test]
fn truncated_weights_are_refused_at_any_length() {
    let whole = std::fs::metadata(Copy::of("bert").file("model.safetensors"))
        .unwrap()
        .len() as usize;
    for bytes in [0, 7, 8, 100, whole / 2, whole - 1] {
        broken(
            |c| c.cut("model.safetensors", bytes),
            &["model.safetensors: truncated", &bytes.to_string()],
        );
    }
    broken(
        |c| {
            c.write(
                "model.safetensors",
                b"version https://git-lfs.github.com/spec/v1\n",
            );
        },
        &["not a safetensors file"],
    );
    broken(
        |c| c.write("model.safetensors", b"\x02\0\0\0\0\0\0\0[]"),
        &["not a safetensors header"],
    );
}

#[test]
fn a_broken_pickle_is_an_error_without_a_panic() {
    let whole = std::fs::metadata(Copy::of("bert-pickle").file("pytorch_model.bin"))
        .unwrap()
        .len() as usize;
    for bytes in [0, 4, 1000, whole / 2, whole - 1] {
        let copy = Copy::of("bert-pickle");
        copy.cut("pytorch_model.bin", bytes);
        refused(copy.path(), &["pytorch_model.bin"]);
    }
    let copy = Copy::of("bert-pickle");
    copy.write("pytorch_model.bin", b"cos\nsystem\n(S'exit 1'\ntR.");
    refused(copy.path(), &["pytorch_model.bin"]);
}

#[test]
fn a_missing_tensor_is_named_with_the_shape_it_should_have() {
    let query = "bert.encoder.layer.1.attention.self.query.weight";
    broken(
        |c| c.tensors(|t| drop(t.remove(query))),
        &["tensor", query, "is missing", "bert needs it", "[64, 64]"],
    );
    broken(
        |c| c.tensors(|t| drop(t.remove("classifier.bias"))),
        &["tensor classifier.bias is missing"],
    );
    broken(|c| c.tensors(|t| drop(t.remove(WORD))), &[WORD, "is missing"]);
    broken(
        |c| c.json("config.json", r#"{"num_hidden_layers":3}"#),
        &["bert.encoder.layer.2.", "is missing"],
    );
}

#[test]
fn another_shape_is_shown_beside_the_expected_one() {
    broken(
        |c| c.json("config.json", r#"{"intermediate_size":100}"#),
        &["has shape", "config.json makes it [100, 64]"],
    );
    broken(
        |c| c.json("config.json", r#"{"max_position_embeddings":4096}"#),
        &["position_embeddings.weight has shape", "[4096, 64]"],
    );
    broken(
        |c| c.json("config.json", r#"{"vocab_size":5000}"#),
        &["word_embeddings.weight has shape", "[5000, 64]"],
    );
}

#[test]
fn a_label_count_that_does_not_fit_is_refused_with_both_counts() {
    let labels = r#"{"id2label":{"0":"a","1":"b","2":"c","3":"d","4":"e","5":"f","6":"g"}}"#;
    broken(
        |c| c.json("config.json", labels),
        &["config.json names 7 labels, but classifier.weight has"],
    );
}

#[test]
fn a_tokenizer_whose_reader_panics_is_refused() {
    // Found by fuzzing: the tokenizers crate unwraps a truncated decoder.
    broken(
        |c| {
            let text = std::fs::read_to_string(c.file("tokenizer.json")).unwrap();
            let within = text.find("\"prefix\":\"##\"").unwrap();
            c.write("tokenizer.json", &text.as_bytes()[..within]);
        },
        &["tokenizer.json: not a tokenizer: it breaks off"],
    );
}

#[test]
fn a_tokenizer_with_more_ids_than_the_table_has_rows_is_refused() {
    broken(
        |c| {
            let text = std::fs::read_to_string(c.file("tokenizer.json")).unwrap();
            let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
            json["model"]["vocab"]["beyond"] = 9999.into();
            c.write("tokenizer.json", json.to_string().as_bytes());
        },
        &["tokenizer.json: token \"beyond\" has id 9999, but the embedding table has"],
    );
}

#[test]
fn an_unsupported_stored_type_is_named() {
    let integers = |t: &mut std::collections::BTreeMap<String, Tensor>| {
        let bias = t.get_mut("classifier.bias").unwrap();
        bias.dtype = Dtype::I32;
    };
    broken(
        |c| c.tensors(integers),
        &["the type of tensor classifier.bias is I32; supported: F32, F16, BF16"],
    );
}

#[test]
fn a_shard_index_with_missing_or_foreign_files_is_refused() {
    let copy = Copy::of("bert-sharded");
    copy.remove("model-00002-of-00005.safetensors");
    refused(copy.path(), &["model-00002-of-00005.safetensors"]);
    let copy = Copy::of("bert-sharded");
    copy.write(
        "model.safetensors.index.json",
        br#"{"weight_map":{"a":"../../etc/passwd"}}"#,
    );
    refused(
        copy.path(),
        &["shard \"../../etc/passwd\" lies outside of the folder"],
    );
}

#[test]
fn a_maximum_beyond_the_window_is_refused() {
    let long = LoadOptions {
        max_length: Some(100_000),
        ..options()
    };
    refused_with(
        Copy::of("bert").path(),
        &long,
        &["max_length is 100000; supported: 1 to"],
    );
}

#[test]
fn a_model_that_fails_its_parity_check_is_not_served() {
    let checked = LoadOptions {
        check_parity: true,
        ..options()
    };
    let copy = Copy::of("bert");
    assert_eq!(
        penstock_models::load(copy.path(), &checked)
            .unwrap()
            .spec
            .parity_cases,
        220
    );

    copy.tensors(|t| {
        let bias = t.get_mut("classifier.bias").unwrap();
        let moved: Vec<u8> = bias
            .values()
            .iter()
            .flat_map(|v| (v + 0.01).to_le_bytes())
            .collect();
        bias.bytes = moved;
    });
    refused_with(
        copy.path(),
        &checked,
        &[
            "parity.json: case 0: the largest difference is",
            "allowed are 1e-4",
        ],
    );
    assert!(
        penstock_models::load(copy.path(), &options()).is_ok(),
        "only the check refuses it"
    );

    let copy = Copy::of("bert");
    let text = std::fs::read_to_string(copy.file("parity.json")).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
    json["cases"][3]["ids"][0] = 7.into();
    copy.write("parity.json", json.to_string().as_bytes());
    refused_with(
        copy.path(),
        &checked,
        &["case 3: token 0 is", "the original has Some(7)"],
    );
    copy.json("parity.json", r#"{"task":"embedding"}"#);
    refused_with(
        copy.path(),
        &checked,
        &["task is embedding; supported: sequence-classification"],
    );
    copy.json("parity.json", r#"{"format":2}"#);
    refused_with(copy.path(), &checked, &["format is 2; supported: 1"]);
    let copy = Copy::of("bert");
    copy.json("parity.json", r#"{"tolerance":0}"#);
    refused_with(copy.path(), &checked, &["tolerance is 0"]);
}

/// Expects the outputs of the unchanged folder from `copy`, within `tolerance`.
fn same_outputs(copy: &Copy, tolerance: f32) {
    let reference = reference(&copy.file("parity.json"));
    let mut loaded = load(copy.path(), reference.max_length);
    for case in reference.cases.iter().take(40) {
        let output = run(&mut loaded, &[&case.ids]).remove(0);
        let distance = difference(&output, &case.output);
        assert!(distance <= tolerance, "{:.80}: off by {distance:e}", case.text);
    }
}

#[test]
fn tensor_names_of_other_programs_are_read() {
    let copy = Copy::of("bert");
    copy.tensors(|t| {
        let old = |name: String| {
            let name = name
                .replace("LayerNorm.weight", "LayerNorm.gamma")
                .replace("LayerNorm.bias", "LayerNorm.beta");
            format!("module.{name}")
        };
        *t = std::mem::take(t)
            .into_iter()
            .map(|(name, tensor)| (old(name), tensor))
            .collect();
    });
    same_outputs(&copy, 1e-4);

    let copy = Copy::of("bert-embedding-mean");
    copy.tensors(|t| {
        let named = |name: String| format!("0.auto_model.bert.{}", name.trim_start_matches("bert."));
        *t = std::mem::take(t)
            .into_iter()
            .map(|(name, tensor)| (named(name), tensor))
            .collect();
    });
    same_outputs(&copy, 1e-4);
}

#[test]
fn half_precision_is_read_and_counted() {
    let convert = |dtype: Dtype, encode: fn(f32) -> [u8; 2], tolerance: f32| {
        let copy = Copy::of("bert");
        copy.tensors(|t| {
            for tensor in t.values_mut() {
                tensor.bytes = tensor.values().into_iter().flat_map(encode).collect();
                tensor.dtype = dtype;
            }
        });
        let spec = penstock_models::inspect(copy.path(), &options()).unwrap();
        assert_eq!(spec.dtypes.keys().collect::<Vec<_>>(), [&format!("{dtype:?}")]);
        assert_eq!(
            spec.parameters,
            penstock_models::inspect(Copy::of("bert").path(), &options())
                .unwrap()
                .parameters
        );
        same_outputs(&copy, tolerance);
    };
    convert(Dtype::F16, |v| half::f16::from_f32(v).to_le_bytes(), 2e-2);
    convert(Dtype::BF16, |v| half::bf16::from_f32(v).to_le_bytes(), 2e-1);
}

#[test]
fn inspect_describes_a_folder_as_load_does() {
    let copy = Copy::of("mpnet-embedding-mean");
    let spec = penstock_models::inspect(copy.path(), &options()).unwrap();
    assert_eq!((spec.family.name(), spec.task), ("mpnet", Task::Embedding));
    assert_eq!(
        (spec.hidden, spec.layers, spec.heads, spec.parity_cases),
        (64, 2, 4, 220)
    );
    assert!(spec.labels.is_empty() && spec.normalize && !spec.pooling_assumed);
    let loaded = penstock_models::load(copy.path(), &options()).unwrap();
    assert_eq!(format!("{:?}", loaded.spec), format!("{spec:?}"));
    assert!(spec.max_length <= loaded.model.window());
    assert_eq!(loaded.tokenizer.max_length(), spec.max_length);
}

#[test]
fn pooling_without_a_file_is_reported_as_assumed() {
    let copy = Copy::of("mpnet-embedding-mean");
    copy.remove("modules.json");
    copy.remove("1_Pooling/config.json");
    let spec = penstock_models::inspect(copy.path(), &options()).unwrap();
    assert!(spec.task == Task::Embedding && spec.pooling_assumed && !spec.normalize);
}

#[test]
fn a_classifier_can_serve_embeddings_instead() {
    let embed = LoadOptions {
        task: Some(Task::Embedding),
        check_parity: true,
        ..options()
    };
    let mut loaded = penstock_models::load(Copy::of("distilbert").path(), &embed).unwrap();
    assert!(loaded.spec.labels.is_empty());
    let ids = loaded.tokenizer.encode("a good film", true).unwrap();
    let replies = loaded
        .model
        .forward(&PackedTokens::from_texts([ids.as_slice()]))
        .unwrap();
    assert!(matches!(&replies[..], [Reply::Embedding(vector)] if vector.len() == 64));
}

#[test]
fn a_value_that_is_not_finite_affects_only_its_text() {
    let copy = Copy::of("bert");
    let before = load(copy.path(), 64);
    let bad = before.tokenizer.encode("good", true).unwrap().as_slice()[1];
    copy.tensors(|t| {
        let word = t.get_mut(WORD).unwrap();
        let row = bad as usize * 64 * 4;
        word.bytes[row..row + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    });
    let mut after = load(copy.path(), 64);
    let texts =
        ["a dull film", "good", "the screen is bright"].map(|t| after.tokenizer.encode(t, true).unwrap());
    let texts: Vec<&[u32]> = texts.iter().map(penstock_core::TokenIds::as_slice).collect();
    assert!(texts[1].contains(&bad) && !texts[0].contains(&bad) && !texts[2].contains(&bad));
    let mut before = before;
    let healthy = before
        .model
        .forward(&PackedTokens::from_texts(texts.iter().copied()))
        .unwrap();
    let replies = after.model.forward(&PackedTokens::from_texts(texts)).unwrap();
    assert_eq!(
        replies.iter().map(Reply::is_finite).collect::<Vec<_>>(),
        [true, false, true]
    );
    assert_eq!((&replies[0], &replies[2]), (&healthy[0], &healthy[2]));
}

#[test]
fn a_batch_that_cannot_run_is_refused_and_the_next_one_runs() {
    let mut loaded = load(Copy::of("bert").path(), 64);
    let window = loaded.model.window();
    let mut check = |ids: Vec<u32>, cu_seqlens: Vec<u32>, part: &str| {
        let message = loaded
            .model
            .forward(&PackedTokens { ids, cu_seqlens })
            .unwrap_err()
            .to_string();
        assert!(message.contains(part), "{message} lacks {part}");
    };
    check(
        vec![1, 999_999],
        vec![0, 2],
        "token id 999999 lies outside of the vocabulary of",
    );
    check(
        vec![1; window + 1],
        vec![0, window as u32 + 1],
        &format!("must have 1 to {window}"),
    );
    check(vec![1, 2], vec![0, 0, 2], "text 0 has 0 tokens");
    check(vec![1, 2], vec![0, 2, 1, 2], "text 1 has 0 tokens");
    check(
        vec![1, 2],
        vec![0, 1],
        "cu_seqlens does not run from 0 to 2 tokens",
    );
    check(vec![1, 2], vec![], "cu_seqlens does not run from 0 to 2 tokens");
    assert_eq!(loaded.model.forward(&PackedTokens::default()).unwrap(), []);
    let longest = vec![1; window];
    assert_eq!(
        loaded
            .model
            .forward(&PackedTokens::from_texts([longest.as_slice()]))
            .unwrap()
            .len(),
        1
    );
}
