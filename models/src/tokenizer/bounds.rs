//! Bounds of a tokenizer: tokens of a byte, bytes that a normaliser makes of a byte, bytes that are read at a time.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tokenizers::{ModelWrapper, Tokenizer};

use super::window::{WINDOW_BYTES_MAX, WINDOW_BYTES_MIN};
use crate::ModelError;

/// Most bytes that replacements may make of one. Real tokenizers replace a blank by a mark of three bytes, or a few
/// blanks by one.
const REPLACED_MAX: usize = 32;
/// Most bytes of one replacement in a map of characters. The longest in use is that of U+FDFA, 33 bytes.
const MAPPED_MAX: usize = 40;

/// Most tokens that one byte can become. `WordPiece` and Unigram make at most one token of a character,
/// byte-level BPE one of a byte. A normaliser may turn one character into many before.
pub(super) fn tokens_per_byte(tokenizer: &Tokenizer) -> Option<usize> {
    /// The maximum is U+FDFA: its three bytes become eighteen characters under NFKC.
    const COMPATIBILITY: usize = 6;
    let normalizer = serde_json::to_value(tokenizer.get_normalizer()).ok()?;
    let growth = growth(&normalizer)?;
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
        // One character replaces at least one; longer replacements could multiply.
        "Replace" => (normalizer.get("content")?.as_str()?.chars().count() <= 1).then_some(1),
        _ => None,
    }
}

/// Most bytes of a text that are read at a time, fewer where the normaliser may make many of one. A chain of
/// replacements multiplies, so that some bytes could become gigabytes; a longer one than real tokenizers have is
/// refused.
pub(super) fn bytes_max(file: &Path, tokenizer: &Tokenizer) -> Result<usize, ModelError> {
    let normalizer = serde_json::to_value(tokenizer.get_normalizer()).unwrap_or_default();
    let (replaced, mapped) = expansion(&normalizer);
    if replaced > REPLACED_MAX || mapped > MAPPED_MAX {
        let found = format!(
            "a chain that can make {} bytes of one",
            replaced.saturating_mul(mapped)
        );
        let supported = format!("up to {REPLACED_MAX} by replacements, {MAPPED_MAX} by a map of characters");
        return Err(ModelError::unsupported(file, "normalizer", found, &supported));
    }
    Ok((WINDOW_BYTES_MAX / replaced).max(WINDOW_BYTES_MIN))
}

/// Most bytes that the replacements of a normaliser make of one byte, and that its maps make of one character.
fn expansion(normalizer: &Value) -> (usize, usize) {
    let text = |key: &str| normalizer.get(key).and_then(Value::as_str).unwrap_or_default();
    match text("type") {
        "Sequence" => {
            let parts = normalizer.get("normalizers").and_then(Value::as_array);
            parts
                .into_iter()
                .flatten()
                .map(expansion)
                .fold((1, 1), |(replaced, mapped), (r, m)| {
                    (replaced.saturating_mul(r), mapped.max(m))
                })
        }
        "Replace" => {
            let content = text("content").len();
            let pattern = normalizer
                .get("pattern")
                .and_then(|p| p.get("String"))
                .and_then(Value::as_str);
            match pattern.map_or(0, str::len) {
                // A pattern may match nothing, before each byte.
                0 => (content + 1, 1),
                bytes => (content.div_ceil(bytes).max(1), 1),
            }
        }
        "Prepend" => (text("prepend").len() + 1, 1),
        "ByteLevel" => (2, 1),
        "Precompiled" => (1, longest_mapped(text("precompiled_charsmap"))),
        _ => (1, 1),
    }
}

/// Length of the longest replacement in a map of `SentencePiece`: the length of a trie, the trie, and texts that end
/// in zero bytes.
fn longest_mapped(map: &str) -> usize {
    let Ok(bytes) = STANDARD.decode(map) else {
        return usize::MAX;
    };
    let trie = bytes
        .first_chunk()
        .map_or(0, |&length| u32::from_le_bytes(length) as usize);
    let texts = bytes.get(trie.saturating_add(4)..).unwrap_or_default();
    texts.split(|&byte| byte == 0).map(<[u8]>::len).max().unwrap_or(0)
}

/// Distance from a cut within which a token may change: half of a special token reads as ordinary words.
pub(super) fn margin(tokenizer: &Tokenizer) -> usize {
    let added = tokenizer.get_added_tokens_decoder();
    added
        .values()
        .map(|token| token.content.len())
        .max()
        .unwrap_or(0)
        .max(16)
}

/// The token with the largest id.
pub(super) fn largest(file: &Path, tokenizer: &Tokenizer) -> Result<(String, u32), ModelError> {
    let vocabulary = tokenizer.get_vocab(true);
    vocabulary
        .into_iter()
        .max_by_key(|(_, id)| *id)
        .ok_or_else(|| ModelError::malformed(file, "the vocabulary is empty"))
}
