//! A prefix gives the tokens of the whole text; the bound on tokens holds for every character.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokenizers::normalizers::NFKC;
use tokenizers::{NormalizedString, Normalizer};

use super::prefix::PREFIX_BYTES_MAX;
use super::*;
use crate::Family;

fn tokenizer(folder: &str, max_length: usize) -> TextTokenizer {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/families")
        .join(folder);
    let family = crate::config::Config::read(&folder).unwrap().family;
    TextTokenizer::read(
        &folder,
        family,
        Limits {
            max_length,
            lowercase: false,
        },
    )
    .unwrap()
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
fn settled_tokens_of_a_prefix_are_those_of_the_whole_text() {
    for folder in FOLDERS {
        let tokenizer = tokenizer(folder, 512);
        let inner = &*tokenizer.0;
        for seed in 0..60 {
            let mut rng = StdRng::seed_from_u64(seed);
            let text = text(&mut rng, 600);
            let whole = inner.tokenizer.encode_fast(text.as_str(), false).unwrap();
            for _ in 0..30 {
                let cut = text.floor_char_boundary(rng.random_range(1..text.len()));
                let prefix = inner.prefix(&text[..cut], false).unwrap();
                let settled = &prefix.all[..prefix.settled];
                assert!(
                    whole.get_ids().starts_with(settled),
                    "{folder} seed {seed} cut {cut}: {:?}",
                    &text[..cut]
                );
            }
        }
    }
}

/// Progress as well as safety: a prefix without settled tokens would be correct and useless.
#[test]
fn most_of_a_prefix_of_ordinary_text_is_settled() {
    let text = "The film was unbelievably good, 今天的电影很好看, and cost 2,000.50 dollars. ".repeat(10);
    for folder in FOLDERS {
        let tokenizer = tokenizer(folder, 512);
        for cut in 500..600 {
            let prefix = tokenizer
                .0
                .prefix(&text[..text.floor_char_boundary(cut)], false)
                .unwrap();
            let (settled, all) = (prefix.settled, prefix.all.len());
            assert!(
                settled * 10 > all * 8,
                "{folder} cut {cut}: {settled} of {all} tokens are settled"
            );
        }
    }
}

#[test]
fn a_prefix_gives_the_tokens_of_the_whole() {
    for folder in FOLDERS {
        let tokenizer = tokenizer(folder, 512);
        let inner = &*tokenizer.0;
        for seed in 0..40 {
            let mut rng = StdRng::seed_from_u64(seed);
            let size = rng.random_range(9_000..40_000);
            let text = text(&mut rng, size);
            let wanted = rng.random_range(1..400);
            let body = inner.body(&text, wanted, false).unwrap();
            let whole = inner.tokenizer.encode_fast(text.as_str(), false).unwrap();
            let whole = &whole.get_ids()[..wanted.min(whole.len())];
            assert!(
                body.ids.len() >= whole.len(),
                "{folder} seed {seed}: {} of {}",
                body.ids.len(),
                whole.len()
            );
            assert_eq!(
                &body.ids[..whole.len()],
                whole,
                "{folder} seed {seed} wanted {wanted}"
            );
        }
    }
}

#[test]
fn a_prefix_in_lower_case_gives_the_tokens_of_the_whole() {
    let shared = tokenizer("roberta", 512);
    let inner = Arc::into_inner(shared.0).unwrap();
    let inner = Inner {
        lowercase: true,
        ..inner
    };
    let text = "ΌΔΟΣ STREETS ".repeat(2_000);
    let body = inner.body(&text, 50, false).unwrap();
    let whole = inner.tokenizer.encode_fast(text.to_lowercase(), false).unwrap();
    assert_eq!(body.ids[..50], whole.get_ids()[..50]);
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
        let bounded = word.repeat(PREFIX_BYTES_MAX);
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
            bytes_max: PREFIX_BYTES_MAX
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
    let lowering = bert.0.tokenizer.get_normalizer().unwrap();
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

fn bert() -> Family {
    Family::named("bert").unwrap()
}

fn refused(files: &[(&str, &str)], part: &str) {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let limits = Limits {
        max_length: 16,
        lowercase: false,
    };
    let message = TextTokenizer::read(folder.path(), bert(), limits)
        .map(|_| ())
        .unwrap_err()
        .to_string();
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
    let left = r#"{"truncation_side":"left"}"#;
    refused(
        &[("tokenizer_config.json", left)],
        "truncation_side is left; supported: right",
    );
}

#[test]
fn a_maximum_without_room_for_text_is_refused() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/families/bert");
    let limits = Limits {
        max_length: 2,
        lowercase: false,
    };
    let message = TextTokenizer::read(&folder, bert(), limits)
        .map(|_| ())
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("2 special tokens leave no room in a text of 2"),
        "{message}"
    );
}
