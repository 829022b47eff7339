//! A model folder with one file from the fuzzer: it loads, or it is refused with a reason.
//!
//! The first byte chooses the file; the rest is its content. The others are those of a small BERT.

#![no_main]

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use penstock_core::PackedTokens;
use penstock_models::{Device, LoadOptions, Precision, Threads, load};

/// Files that may be replaced; the last two are read where there is no safetensors file.
const FILES: [&str; 8] = [
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "parity.json",
    "sentence_bert_config.json",
    "1_Pooling/config.json",
    "pytorch_model.bin",
    "model.safetensors.index.json",
];

static WHOLE: LazyLock<PathBuf> = LazyLock::new(|| {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tests/families/bert-embedding-mean")
});
static THREADS: LazyLock<Threads> = LazyLock::new(|| Threads::new(1).expect("one thread can be had"));
static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    // Panics in these crates are caught and become errors; the fuzzer's hook would end the process first.
    let caught = ["/candle-core-", "/tokenizers-"];
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let file = panic.location().map_or("", |place| place.file());
        if !caught.iter().any(|name| file.contains(name)) {
            report(panic);
        }
    }));
    tempfile::tempdir().expect("a folder can be made")
});

fuzz_target!(|data: &[u8]| {
    let Some((choice, content)) = data.split_first() else {
        return;
    };
    let name = FILES[usize::from(*choice) % FILES.len()];
    let folder = FOLDER.path();
    std::fs::create_dir_all(folder.join("1_Pooling")).expect("a folder can be made");
    for file in FILES {
        let (from, to) = (WHOLE.join(file), folder.join(file));
        if file == name {
            std::fs::write(to, content).expect("a file can be written");
        } else if from.exists() && !(file == "model.safetensors" && name.contains("model.bin")) {
            std::fs::copy(from, to).expect("a file can be copied");
        } else {
            // It is not there already, most of the time.
            let _ = std::fs::remove_file(to);
        }
    }
    let options = LoadOptions {
        device: Device::Cpu {
            threads: Some(THREADS.clone()),
            precision: Precision::F32,
        },
        allow_pickle: true,
        ..LoadOptions::default()
    };
    if let Ok(mut loaded) = load(folder, &options)
        && let Ok(tokens) = loaded.tokenizer.encode("What a lovely day", true)
    {
        let batch = PackedTokens::from_texts([tokens.as_slice()].into_iter());
        let rows = loaded.model.forward(&batch).expect("what loads runs");
        assert_eq!(rows.len(), 1);
    }
});
