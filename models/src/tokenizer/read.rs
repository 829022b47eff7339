//! Reading a tokenizer: `tokenizer.json`, or `vocab.txt` with `tokenizer_config.json`.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::{AddedToken, Encoding, Model, ModelWrapper, Token, Tokenizer};

use super::spans::WordRule;
use super::{Inner, Limits};
use crate::config::read_json;
use crate::guard::guard;
use crate::{Family, ModelError};

/// The keys of `tokenizer_config.json` that affect ids.
#[derive(Default, Deserialize)]
struct Settings {
    /// A float, because "no limit" is written as 1e30.
    model_max_length: Option<f64>,
    truncation_side: Option<String>,
    do_lower_case: Option<bool>,
    tokenize_chinese_chars: Option<bool>,
    strip_accents: Option<bool>,
    cls_token: Option<Special>,
    sep_token: Option<Special>,
    unk_token: Option<Special>,
    pad_token: Option<Special>,
    mask_token: Option<Special>,
}

/// A special token: its text, or an object that holds it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Special {
    Text(String),
    Object { content: String },
}

fn text_or<'a>(special: Option<&'a Special>, otherwise: &'a str) -> &'a str {
    match special {
        Some(Special::Text(text) | Special::Object { content: text }) => text,
        None => otherwise,
    }
}

fn settings(folder: &Path) -> Result<Settings, ModelError> {
    Ok(read_json(&folder.join("tokenizer_config.json"))?.unwrap_or_default())
}

/// `model_max_length`, where it is a real limit.
pub(crate) fn length_limit(folder: &Path) -> Result<Option<usize>, ModelError> {
    let limit = settings(folder)?.model_max_length;
    Ok(limit.filter(|l| (1.0..1e9).contains(l)).map(|l| l as usize))
}

pub(super) fn read(folder: &Path, family: Family, limits: Limits) -> Result<Inner, ModelError> {
    let settings = settings(folder)?;
    if settings
        .truncation_side
        .as_deref()
        .is_some_and(|side| side != "right")
    {
        let side = settings.truncation_side.unwrap_or_default();
        let file = folder.join("tokenizer_config.json");
        return Err(ModelError::unsupported(&file, "truncation_side", side, "right"));
    }
    let (json, vocabulary) = (folder.join("tokenizer.json"), folder.join("vocab.txt"));
    let (file, tokenizer, before, after) = if json.exists() {
        let (tokenizer, before, after) = from_json(&json)?;
        (json, tokenizer, before, after)
    } else if vocabulary.exists() {
        let (tokenizer, cls, sep) = from_vocabulary(&vocabulary, family, &settings)?;
        (vocabulary, tokenizer, vec![cls], vec![sep])
    } else {
        let missing = "tokenizer.json (or vocab.txt)".to_owned();
        return Err(ModelError::MissingFile {
            folder: folder.to_path_buf(),
            missing,
        });
    };
    Ok(Inner {
        before,
        after,
        words: WordRule::of(
            &tokenizer,
            settings.unk_token.as_ref().map(|unk| text_or(Some(unk), "")),
        ),
        max_length: limits.max_length,
        lowercase: limits.lowercase,
        tokens_per_byte: tokens_per_byte(&tokenizer, limits.lowercase),
        margin: margin(&tokenizer),
        largest: largest(&file, &tokenizer)?,
        file,
        tokenizer,
    })
}

/// Placeholder id for the text; no vocabulary has it.
const TEXT: u32 = u32::MAX;

/// Reads `tokenizer.json`, and the special tokens that its post-processor puts around a text.
fn from_json(file: &Path) -> Result<(Tokenizer, Vec<u32>, Vec<u32>), ModelError> {
    let bytes = std::fs::read(file).map_err(|e| ModelError::io(file, e))?;
    let reason = "not a tokenizer: it breaks off, or a part of it has no known form";
    let mut tokenizer = guard(file, reason, || Tokenizer::from_bytes(bytes))?;
    // The file may hold the padding and truncation of the program that saved it: all-MiniLM-L6-v2 pads every
    // text to 128 tokens. Penstock applies the model's own limit and never pads.
    tokenizer.with_padding(None);
    tokenizer
        .with_truncation(None)
        .map_err(|e| ModelError::malformed(file, e))?;

    let text = Encoding::from_tokens(vec![Token::new(TEXT, String::new(), (0, 0))], 0);
    let reason = "the post-processor names what is not there";
    let framed = guard(file, reason, || tokenizer.post_process(text, None, true))?;
    let ids = framed.get_ids();
    match ids.iter().filter(|&&id| id == TEXT).count() {
        1 => {
            let at = ids.iter().position(|&id| id == TEXT).unwrap_or_default();
            let (before, after) = (ids[..at].to_vec(), ids[at + 1..].to_vec());
            Ok((tokenizer, before, after))
        }
        n => Err(ModelError::malformed(
            file,
            format!("the post-processor repeats the text {n} times, not once"),
        )),
    }
}

/// BERT's own tokenizer around a word list.
fn from_vocabulary(
    file: &Path,
    family: Family,
    settings: &Settings,
) -> Result<(Tokenizer, u32, u32), ModelError> {
    let list = family.word_list().ok_or_else(|| ModelError::MissingFile {
        folder: file.parent().unwrap_or(file).to_path_buf(),
        missing: format!("tokenizer.json (vocab.txt is no tokenizer of {})", family.name()),
    })?;
    let cls = text_or(settings.cls_token.as_ref(), list.cls);
    let sep = text_or(settings.sep_token.as_ref(), list.sep);
    let unk = text_or(settings.unk_token.as_ref(), "[UNK]");
    let pad = text_or(settings.pad_token.as_ref(), list.pad);
    let mask = text_or(settings.mask_token.as_ref(), list.mask);

    let path = file
        .to_str()
        .ok_or_else(|| ModelError::malformed(file, "its path is not UTF-8"))?;
    let words = WordPiece::from_file(path).unk_token(unk.to_owned()).build();
    let words = words.map_err(|e| ModelError::malformed(file, e))?;
    let id = |token: &str| {
        words
            .token_to_id(token)
            .ok_or_else(|| ModelError::malformed(file, format!("token {token} is missing")))
    };
    let (cls_id, sep_id) = (id(cls)?, id(sep)?);
    // Unknown words need this token.
    id(unk)?;
    let specials: Vec<AddedToken> = [cls, sep, unk, pad]
        .iter()
        .map(|token| AddedToken::from(*token, true))
        .chain([AddedToken::from(mask, true).lstrip(list.mask_strips)])
        .filter(|token| words.token_to_id(&token.content).is_some())
        .collect();

    let mut tokenizer = Tokenizer::new(ModelWrapper::WordPiece(words));
    tokenizer
        .with_normalizer(Some(BertNormalizer::new(
            true,
            settings.tokenize_chinese_chars.unwrap_or(true),
            settings.strip_accents,
            settings.do_lower_case.unwrap_or(true),
        )))
        .map_err(|e| ModelError::malformed(file, e))?;
    tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
    tokenizer
        .add_special_tokens(specials)
        .map_err(|e| ModelError::malformed(file, e))?;
    Ok((tokenizer, cls_id, sep_id))
}

/// Most tokens that one byte can become. `WordPiece` and Unigram make at most one token of a character,
/// byte-level BPE one of a byte. A normaliser may turn one character into many before.
fn tokens_per_byte(tokenizer: &Tokenizer, lowercase: bool) -> Option<usize> {
    /// The maximum is U+FDFA: its three bytes become eighteen characters under NFKC.
    const COMPATIBILITY: usize = 6;
    let normalizer = serde_json::to_value(tokenizer.get_normalizer()).ok()?;
    let growth = growth(&normalizer)?.max(if lowercase { COMPATIBILITY } else { 1 });
    match tokenizer.get_model() {
        ModelWrapper::WordPiece(_) => Some(growth),
        ModelWrapper::Unigram(model) if !model.byte_fallback() => Some(growth),
        ModelWrapper::BPE(_) if growth == 1 => Some(1),
        _ => None,
    }
    .map(|n| if n == 1 { 1 } else { COMPATIBILITY })
}

/// Bound of the characters that a normaliser makes of one byte: 1, or more where it may expand a character.
/// `None` where the bound is unknown.
fn growth(normalizer: &Value) -> Option<usize> {
    if normalizer.is_null() {
        return Some(1);
    }
    match normalizer.get("type")?.as_str()? {
        "Sequence" => {
            let parts = normalizer.get("normalizers")?.as_array()?;
            parts
                .iter()
                .try_fold(1, |most, part| Some(growth(part)?.max(most)))
        }
        "BertNormalizer" | "Strip" | "StripAccents" | "Nmt" => Some(1),
        "NFC" | "NFD" | "NFKC" | "NFKD" | "Lowercase" | "Precompiled" => Some(6),
        // One character replaces at least one; longer replacements could multiply without bound.
        "Replace" => (normalizer.get("content")?.as_str()?.chars().count() <= 1).then_some(1),
        _ => None,
    }
}

/// Distance from a cut within which a token may change: half of a special token reads as ordinary words.
fn margin(tokenizer: &Tokenizer) -> usize {
    let added = tokenizer.get_added_tokens_decoder();
    added
        .values()
        .map(|token| token.content.len())
        .max()
        .unwrap_or(0)
        .max(16)
}

fn largest(file: &Path, tokenizer: &Tokenizer) -> Result<(String, u32), ModelError> {
    let vocabulary = tokenizer.get_vocab(true);
    vocabulary
        .into_iter()
        .max_by_key(|(_, id)| *id)
        .ok_or_else(|| ModelError::malformed(file, "the vocabulary is empty"))
}
