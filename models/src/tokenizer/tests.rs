//! A prefix gives the tokens of the whole text; the bound on tokens holds for every character.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokenizers::normalizers::NFKC;
use tokenizers::{NormalizedString, Normalizer};

use super::window::WINDOW_BYTES_MAX;
use serde_json::{Map, Value};

use super::*;

fn read(folder: &Path, max_length: usize, lowercase: bool) -> Result<TextTokenizer, ModelError> {
    let settings = Settings::read(folder, &Map::new())?;
    let config = crate::config::Config::read(folder);
    let plan = Plan {
        family: config.as_ref().map_or(Family::ALL[0], |config| config.family),
        class: None,
        settings: &settings,
        max_length,
        lowercase,
        prompts: Prompts::read(folder)?,
        prompt_excluded: None,
    };
    TextTokenizer::read(folder, plan)
}

fn stored(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/families")
        .join(folder)
}

fn tokenizer(folder: &str, max_length: usize) -> TextTokenizer {
    read(&stored(folder), max_length, false).unwrap()
}

/// Reads a tokenizer of the first test family from these files in place of its own.
fn of_files(files: &[(&str, &str)]) -> Result<TextTokenizer, ModelError> {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    read(folder.path(), 16, false)
}

/// `tokenizer.json` of a test family, changed.
fn changed(family: &str, change: impl FnOnce(&mut Value)) -> String {
    let text = std::fs::read_to_string(stored(family).join("tokenizer.json")).unwrap();
    let mut json: Value = serde_json::from_str(&text).unwrap();
    change(&mut json);
    json.to_string()
}

/// The inner tokenizer, cut on `side`.
fn inner(folder: &str, side: Side) -> Inner {
    let inner = Arc::into_inner(tokenizer(folder, 512).inner).unwrap();
    Inner { side, ..inner }
}

const SIDES: [Side; 2] = [Side::Right, Side::Left];

/// The kept end of `ids`.
fn kept(ids: &[u32], side: Side, count: usize) -> &[u32] {
    let count = count.min(ids.len());
    match side {
        Side::Right => &ids[..count],
        Side::Left => &ids[ids.len() - count..],
    }
}

const FOLDERS: [&str; 6] = [
    "bert",
    "bert-vocabulary",
    "roberta",
    "xlm-roberta",
    "camembert",
    "mpnet",
];

/// Pieces in which a cut may fall: words, blanks, combining marks, special tokens spelled out.
const PIECES: [&str; 22] = [
    "film",
    "unbelievably",
    "2,000.5",
    " ",
    "  ",
    "\n\n",
    "\t",
    "。",
    "今天的电影很好看",
    "한국어",
    "مرحبا",
    "cafe\u{301}",
    "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}",
    "[SEP]",
    " <mask>",
    "</s>",
    "[MASK]",
    "n't",
    "...",
    "\u{fdfa}",
    "\u{0}",
    "ΣΑΣ",
];

fn text(rng: &mut StdRng, bytes: usize) -> String {
    let mut text = String::new();
    while text.len() < bytes {
        let piece = PIECES[rng.random_range(0..PIECES.len())];
        match rng.random_range(0..40) {
            // A run: endless words and endless blanks are the hard cases.
            0 => text.extend(std::iter::repeat_n(piece, rng.random_range(1..600))),
            n => {
                text.push_str(piece);
                if n % 2 == 0 {
                    text.push(' ');
                }
            }
        }
    }
    text
}

#[test]
fn settled_tokens_of_a_part_are_those_of_the_whole_text() {
    for (folder, side) in FOLDERS
        .iter()
        .flat_map(|folder| SIDES.map(|side| (*folder, side)))
    {
        let inner = inner(folder, side);
        for seed in 0..40 {
            let mut rng = StdRng::seed_from_u64(seed);
            let text = text(&mut rng, 600);
            let whole = inner.tokenizer.encode_fast(text.as_str(), false).unwrap();
            for _ in 0..30 {
                let window = rng.random_range(1..text.len());
                let part = inner.part(&text, window).unwrap();
                let settled = kept(&part.ids, side, part.settled);
                assert_eq!(
                    settled,
                    kept(whole.get_ids(), side, part.settled),
                    "{folder} {side:?} seed {seed} window {window}"
                );
            }
        }
    }
}

/// Progress as well as safety: a part without settled tokens would be correct and useless.
#[test]
fn most_of_a_part_of_ordinary_text_is_settled() {
    let text = "The film was unbelievably good, 今天的电影很好看, and cost 2,000.50 dollars. ".repeat(10);
    for (folder, side) in FOLDERS
        .iter()
        .flat_map(|folder| SIDES.map(|side| (*folder, side)))
    {
        let inner = inner(folder, side);
        for window in 500..600 {
            let part = inner.part(&text, window).unwrap();
            let (settled, all) = (part.settled, part.ids.len());
            assert!(
                settled * 10 > all * 8,
                "{folder} {side:?} window {window}: {settled} of {all} tokens are settled"
            );
        }
    }
}

#[test]
fn a_part_gives_the_tokens_of_the_whole() {
    for (folder, side) in FOLDERS
        .iter()
        .flat_map(|folder| SIDES.map(|side| (*folder, side)))
    {
        let inner = inner(folder, side);
        for seed in 0..25 {
            let mut rng = StdRng::seed_from_u64(seed);
            let size = rng.random_range(9_000..40_000);
            let text = text(&mut rng, size);
            let wanted = rng.random_range(1..400);
            let body = inner.body(&text, wanted).unwrap();
            let whole = inner.tokenizer.encode_fast(text.as_str(), false).unwrap();
            let whole = kept(whole.get_ids(), side, wanted);
            assert_eq!(
                kept(&body.ids, side, whole.len()),
                whole,
                "{folder} {side:?} seed {seed} wanted {wanted}"
            );
        }
    }
}

#[test]
fn lower_case_comes_before_everything_else_and_once() {
    let plain = tokenizer("roberta", 512);
    let lowered = read(&stored("roberta"), 512, true).unwrap();
    let text = "ΌΔΟΣ STREETS </s> ".repeat(2_000);
    let expected = text.chars().flat_map(char::to_lowercase).collect::<String>();
    assert_eq!(lowered.encode(&text, true), plain.encode(&expected, true));
    let twice = changed("roberta", |json| {
        json["normalizer"] = serde_json::json!({"type": "Lowercase"});
    });
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tokenizer.json"), twice).unwrap();
    let whole = r#"{"tokenizer_class":"PreTrainedTokenizerFast"}"#;
    std::fs::write(folder.path().join("tokenizer_config.json"), whole).unwrap();
    let lowered = read(folder.path(), 512, true).unwrap();
    let normalizer = serde_json::to_value(lowered.inner.tokenizer.get_normalizer()).unwrap();
    assert_eq!(normalizer, serde_json::json!({"type": "Lowercase"}));
}

#[test]
fn the_left_side_is_cut_off_where_a_file_says_so() {
    let words: Vec<String> = (0..200).map(|word| format!("word{word}")).collect();
    let text = words.join(" ");
    for (name, files) in [
        (
            "tokenizer.json",
            changed("bert", |json| {
                json["truncation"] = serde_json::json!(
                    {"direction": "Left", "max_length": 16, "strategy": "LongestFirst", "stride": 0}
                );
            }),
        ),
        (
            "tokenizer_config.json",
            r#"{"truncation_side":"left"}"#.to_owned(),
        ),
    ] {
        let plain = changed("bert", |_| {});
        let left = of_files(&[("tokenizer.json", &plain), (name, &files)]).unwrap();
        let right = of_files(&[("tokenizer.json", &plain)]).unwrap();
        let whole = right.inner.tokenizer.encode_fast(text.as_str(), false).unwrap();
        let ids = left.encode(&text, true).unwrap();
        assert_eq!(
            ids.as_slice()[1..15],
            *kept(whole.get_ids(), Side::Left, 14),
            "{name}"
        );
        let ends = |ids: &[u32]| (ids[0], ids[ids.len() - 1]);
        assert_eq!(
            ends(ids.as_slice()),
            ends(right.encode("a", true).unwrap().as_slice())
        );
        assert!(matches!(
            left.encode(&text, false),
            Err(TokenizeError::TooLong { max: 16, .. })
        ));
    }
}

#[test]
fn a_text_of_ten_megabytes_is_cut_like_any_other() {
    let text = "Streaming inference reads a text only as far as it must. ".repeat(180_000);
    for folder in FOLDERS {
        let tokenizer = tokenizer(folder, 64);
        let short: String = text.chars().take(2_000).collect();
        assert_eq!(
            tokenizer.encode(&text, true).unwrap(),
            tokenizer.encode(&short, true).unwrap(),
            "{folder}"
        );
        assert_eq!(tokenizer.encode(&text, true).unwrap().len(), 64);
        match tokenizer.encode(&text, false) {
            Err(TokenizeError::TooLong { tokens, max: 64 }) => assert!(tokens > 64),
            other => panic!("{folder}: {other:?}"),
        }
    }
}

#[test]
fn an_endless_word_is_read_up_to_a_bound() {
    for (folder, word) in [
        ("bert", "a"),
        ("bert", " "),
        ("roberta", "a"),
        ("xlm-roberta", "a"),
    ] {
        let tokenizer = tokenizer(folder, 64);
        let text = word.repeat(10 << 20);
        let bounded = word.repeat(WINDOW_BYTES_MAX);
        assert_eq!(
            tokenizer.encode(&text, true).unwrap(),
            tokenizer.encode(&bounded, true).unwrap(),
            "{folder}"
        );
        assert!(
            tokenizer.encode(&text, false).is_err(),
            "{folder}: a part of the text was dropped without an error"
        );
    }
    let blanks = tokenizer("bert", 64).encode(&" ".repeat(10 << 20), false);
    assert_eq!(
        blanks,
        Err(TokenizeError::TooLarge {
            bytes: 10 << 20,
            bytes_max: WINDOW_BYTES_MAX
        })
    );
}

#[test]
fn a_long_text_is_refused_where_truncation_is_not_allowed() {
    let tokenizer = tokenizer("bert", 8);
    assert_eq!(tokenizer.encode("a b c d e f", false).unwrap().len(), 8);
    assert_eq!(
        tokenizer.encode("a b c d e f g", false),
        Err(TokenizeError::TooLong { tokens: 9, max: 8 })
    );
    assert_eq!(
        tokenizer.encode("a b c d e f g", true).unwrap(),
        tokenizer.encode("a b c d e f", true).unwrap()
    );
}

/// Every character of the planes in use, without the private and empty ones.
fn assigned() -> impl Iterator<Item = char> {
    (0..0x32000).filter_map(char::from_u32)
}

#[test]
fn no_character_becomes_more_tokens_than_the_bound_allows() {
    for folder in ["bert", "roberta", "xlm-roberta"] {
        let tokenizer = tokenizer(folder, 512);
        for c in assigned() {
            let mut bytes = [0; 4];
            let text: &str = c.encode_utf8(&mut bytes);
            let tokens = tokenizer.encode(text, true).unwrap().len();
            let bound = tokenizer.tokens_bound(text.len());
            assert!(
                tokens <= bound,
                "{folder}: U+{:04X} is {tokens} tokens, bound {bound}",
                u32::from(c)
            );
        }
    }
}

/// The output of normalisers is counted too, because the small tokenizers of the tests lack most characters.
#[test]
fn no_character_grows_more_than_the_bound_allows() {
    let bert = tokenizer("bert", 512);
    let lowering = bert.inner.tokenizer.get_normalizer().unwrap();
    for c in assigned() {
        let mut lowered = NormalizedString::from(c.to_string());
        lowering.normalize(&mut lowered).unwrap();
        // The blanks that BERT puts around an ideograph end words and become no tokens.
        let made = lowered.get().chars().filter(|c| !c.is_whitespace()).count();
        assert!(
            made <= c.len_utf8(),
            "bert: U+{:04X} becomes {made}",
            u32::from(c)
        );

        let mut compatible = NormalizedString::from(c.to_string());
        NFKC.normalize(&mut compatible).unwrap();
        let made = compatible.get().chars().count();
        assert!(
            made <= 6 * c.len_utf8(),
            "NFKC: U+{:04X} becomes {made}",
            u32::from(c)
        );
    }
}

#[test]
fn the_bound_never_exceeds_the_maximum() {
    for folder in FOLDERS {
        let tokenizer = tokenizer(folder, 40);
        assert_eq!(tokenizer.tokens_bound(usize::MAX), 40);
        assert!(tokenizer.tokens_bound(0) >= tokenizer.encode("", true).unwrap().len());
    }
}

fn refused(files: &[(&str, &str)], part: &str) {
    let message = of_files(files).map(|_| ()).unwrap_err().to_string();
    assert!(message.contains(part), "{message} lacks {part}");
}

#[test]
fn a_broken_tokenizer_is_refused_with_its_file() {
    refused(&[], "tokenizer.json (or vocab.txt) is missing");
    refused(&[("tokenizer.json", "{")], "tokenizer.json: EOF");
    refused(&[("tokenizer.json", "{}")], "tokenizer.json: ");
    refused(
        &[("vocab.txt", "[PAD]\n[UNK]\nword\n")],
        "vocab.txt: token [CLS] is missing",
    );
}

#[test]
fn a_maximum_without_room_for_text_is_refused() {
    let message = read(&stored("bert"), 2, false)
        .map(|_| ())
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("2 special tokens leave no room in a text of 2"),
        "{message}"
    );
}

/// A chain of replacements that makes fifty bytes of one, five times: 41 bytes would become 12 GB.
#[test]
fn a_chain_of_replacements_that_multiplies_is_refused() {
    let replace =
        |content: &str| serde_json::json!({"type": "Replace", "pattern": {"Regex": "."}, "content": content});
    let with = |parts: Vec<Value>| {
        changed("bert", |json| {
            json["normalizer"] = serde_json::json!({"type": "Sequence", "normalizers": parts});
        })
    };
    let whole = (
        "tokenizer_config.json",
        r#"{"tokenizer_class":"PreTrainedTokenizerFast"}"#,
    );
    let long = with(vec![replace(&"a".repeat(52)); 5]);
    refused(
        &[whole, ("tokenizer.json", &long)],
        "normalizer is a chain that can make 418195493 bytes of one; supported: up to 32 by replacements",
    );
    let short = with(vec![replace("ab"), replace("c")]);
    let tokenizer = of_files(&[whole, ("tokenizer.json", &short)]).unwrap();
    assert_eq!(tokenizer.inner.bytes_max, WINDOW_BYTES_MAX / 6);
    let map = with(vec![serde_json::json!(
        {"type": "Precompiled", "precompiled_charsmap": STANDARD.encode([&[4, 0, 0, 0, 0, 0, 0, 0][..], &[b'a'; 50]].concat())}
    )]);
    refused(&[whole, ("tokenizer.json", &map)], "40 by a map of characters");
}

#[test]
fn a_prompt_stands_in_front_of_every_text_and_counts() {
    let prompts = r#"{"prompts":{"query":"a film ","clustering":"good "},"default_prompt_name":"query"}"#;
    let json = changed("bert", |_| {});
    let files = [
        ("tokenizer.json", json.as_str()),
        ("config_sentence_transformers.json", prompts),
    ];
    let with = of_files(&files).unwrap();
    let without = with.with_prompt(Prompt::Text("")).unwrap();
    assert_eq!((with.prompt(), without.prompt()), ("a film ", ""));
    assert_eq!(
        with.encode("was dull", true),
        without.encode("a film was dull", true)
    );
    assert_eq!(with.tokens_bound(1), without.tokens_bound(8));
    let named = with.with_prompt(Prompt::Named("clustering")).unwrap();
    assert_eq!(named.encode("film", true), without.encode("good film", true));
    assert_eq!(with.with_prompt(Prompt::Named("document")).unwrap().prompt(), "");
    assert_eq!(
        with.with_prompt(Prompt::Named("topic"))
            .map(|_| ())
            .unwrap_err()
            .to_string(),
        "the model has no prompt named \"topic\"; it has clustering, document, query"
    );
    let inner = Arc::into_inner(of_files(&files).unwrap().inner).unwrap();
    let excluded = TextTokenizer {
        inner: Arc::new(Inner {
            prompt_excluded: Some("1_Pooling/config.json".into()),
            ..inner
        }),
        prompt: "".into(),
    };
    assert!(excluded.with_prompt(Prompt::Named("document")).is_ok());
    let refused = excluded
        .with_prompt(Prompt::Text("good "))
        .map(|_| ())
        .unwrap_err();
    assert!(
        refused
            .to_string()
            .contains("1_Pooling/config.json has include_prompt = false")
    );
}

mod classes;
