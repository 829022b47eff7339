//! Settings beside a tokenizer, merged from five files: the folder loads, or it is refused with a reason. A tokenizer
//! that loads keeps its bounds, and gives a text the same ids when its prompt is spelled out.

#![no_main]

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use penstock_models::{Device, LoadOptions, Precision, Prompt, Threads, load};

/// One setting: a file, a key and a value, chosen from the lists below, or the bytes of a value.
#[derive(Arbitrary, Debug)]
struct Setting<'a> {
    file: u8,
    key: u8,
    value: u8,
    bytes: &'a [u8],
}

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    family: u8,
    settings: Vec<Setting<'a>>,
    text: &'a str,
}

const FAMILIES: [&str; 6] = ["bert-embedding-mean", "bert-vocabulary", "roberta", "xlm-roberta", "camembert", "mpnet"];

const FILES: [&str; 5] = [
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
];

const KEYS: [&str; 36] = [
    "tokenizer_class", "do_lower_case", "strip_accents", "tokenize_chinese_chars", "add_prefix_space",
    "split_special_tokens", "truncation_side", "model_max_length", "max_len", "added_tokens_decoder",
    "additional_special_tokens", "extra_special_tokens", "cls_token", "sep_token", "unk_token", "pad_token",
    "mask_token", "bos_token", "eos_token", "own_token", "never_split", "do_basic_tokenize", "auto_map",
    "max_seq_length", "tokenizer_args", "processor_kwargs", "processing_kwargs", "modality_config", "prompts",
    "default_prompt_name", "query", "<new>", "the", "[SEP]", "text", "max_length",
];

const VALUES: [&str; 32] = [
    "null", "true", "false", "0", "1", "16", "64", "405", "1e30", "-1", "12.5", "NaN", "\"left\"", "\"right\"",
    "\"BertTokenizer\"", "\"PreTrainedTokenizerFast\"", "\"RobertaTokenizerFast\"", "\"XLMRobertaTokenizer\"",
    "\"MPNetTokenizer\"", "\"the\"", "\"[SEP]\"", "\"<new>\"", "\"query\"", "[]", "[\"the\",\"<new>\"]", "{}",
    "{\"query\":\"the \"}", "{\"content\":\"the\",\"lstrip\":true}", "{\"model_max_length\":8,\"truncation_side\":\"left\"}",
    "{\"405\":{\"content\":\"<new>\"},\"7\":{\"content\":\"the\",\"special\":true}}", "{\"text\":{\"max_length\":9}}",
    "{\"own\":\"the\"}",
];

static THREADS: LazyLock<Threads> = LazyLock::new(|| Threads::new(1).expect("one thread can be had"));
static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    // A panic in this crate is caught and becomes an error; the fuzzer's hook would end the process first.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !panic.location().is_some_and(|place| place.file().contains("/tokenizers-")) {
            report(panic);
        }
    }));
    tempfile::tempdir().expect("a folder can be made")
});

/// Writes the family's folder, and the settings of each file in place of its own.
fn write(input: &Input<'_>) -> &'static Path {
    let families = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../models/tests/families");
    let from = families.join(FAMILIES[usize::from(input.family) % FAMILIES.len()]);
    let folder = FOLDER.path();
    for name in ["config.json", "model.safetensors", "tokenizer.json", "vocab.txt", "tokenizer_config.json"] {
        // The last folder may have had files that this one lacks.
        let _ = std::fs::remove_file(folder.join(name));
        if from.join(name).exists() {
            std::fs::copy(from.join(name), folder.join(name)).expect("a file can be copied");
        }
    }
    for (at, name) in FILES.iter().enumerate() {
        let own = input.settings.iter().filter(|s| usize::from(s.file) % FILES.len() == at);
        let pairs: Vec<String> = own
            .map(|setting| {
                let key = KEYS[usize::from(setting.key) % KEYS.len()];
                let listed = VALUES.get(usize::from(setting.value));
                let value = listed.map_or_else(|| String::from_utf8_lossy(setting.bytes).into_owned(), |v| (*v).to_owned());
                format!("\"{key}\":{value}")
            })
            .collect();
        let _ = at.checked_sub(1).map(|_| std::fs::remove_file(folder.join(name)));
        if !pairs.is_empty() {
            std::fs::write(folder.join(name), format!("{{{}}}", pairs.join(","))).expect("a file can be written");
        }
    }
    folder
}

fuzz_target!(|input: Input<'_>| {
    let folder = write(&input);
    let options = LoadOptions {
        device: Device::Cpu {
            threads: Some(THREADS.clone()),
            precision: Precision::F32,
        },
        check_parity: false,
        ..LoadOptions::default()
    };
    let Ok(loaded) = load(folder, &options) else {
        return;
    };
    let tokenizer = loaded.tokenizer;
    let Ok(cut) = tokenizer.encode(input.text, true) else {
        return;
    };
    assert!(cut.len() <= tokenizer.max_length());
    assert!(cut.len() <= tokenizer.tokens_bound(input.text.len()), "the bound holds");
    assert!(cut.as_slice().iter().all(|id| (*id as usize) < loaded.spec.vocabulary));
    let plain = tokenizer.with_prompt(Prompt::Text("")).expect("no prompt is always allowed");
    let spelled = format!("{}{}", tokenizer.prompt(), input.text);
    assert_eq!(plain.encode(&spelled, true).expect("it has tokens").as_slice(), cut.as_slice());
});
