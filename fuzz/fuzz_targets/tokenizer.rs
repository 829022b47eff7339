//! Any text: it has at least one token and at most the window, the bound that admission takes holds, and a text
//! that fits is the same truncated and whole.

#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use penstock_models::{LoadOptions, Loaded, TextTokenizer, load};

static TOKENIZERS: LazyLock<Vec<TextTokenizer>> = LazyLock::new(|| {
    // One of each kind: WordPiece, byte-level BPE, Unigram.
    let families = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tests/families");
    let open = |family: &str| {
        let Loaded { tokenizer, .. } =
            load(&families.join(family), &LoadOptions::default()).expect("the family loads");
        tokenizer
    };
    ["bert", "roberta", "xlm-roberta"].map(open).into()
});

fuzz_target!(|text: &str| {
    for tokenizer in TOKENIZERS.iter() {
        let cut = tokenizer.encode(text, true).expect("every text has tokens");
        assert!(cut.len() <= tokenizer.max_length());
        assert!(cut.len() <= tokenizer.tokens_bound(text.len()), "the bound holds");
        if let Ok(whole) = tokenizer.encode(text, false) {
            assert_eq!(whole.as_slice(), cut.as_slice());
        }
    }
});
