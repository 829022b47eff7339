//! Text to token ids: the file's own tokenizer, its special tokens, truncated to the model's longest text.

mod prefix;
mod read;

use std::path::Path;
use std::sync::Arc;

use penstock_core::TokenIds;
use tokenizers::Tokenizer;

use crate::ModelError;

/// Why a text has no token ids.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenizeError {
    /// The text is longer than the model's maximum, and truncation was not asked for.
    #[error(
        "text of at least {tokens} tokens is longer than the model's {max}; shorten it or allow truncation"
    )]
    TooLong {
        /// Tokens counted when the limit was passed, special tokens included.
        tokens: usize,
        /// The model's maximum.
        max: usize,
    },
    /// The text is so large, and holds so few tokens, that it was not read to its end.
    #[error(
        "text of {bytes} bytes holds few tokens in its first {bytes_max}; shorten it or allow truncation"
    )]
    TooLarge {
        /// The text.
        bytes: usize,
        /// How much of it was read.
        bytes_max: usize,
    },
    /// A tokenizer without special tokens makes nothing of this text.
    #[error("the text has no tokens")]
    NoTokens,
    /// The tokenizer failed.
    #[error("tokenizer: {0}")]
    Failed(String),
}

/// A model's tokenizer. Clones share it, and any number of threads may use it at once.
#[derive(Clone)]
pub struct TextTokenizer(Arc<Inner>);

struct Inner {
    tokenizer: Tokenizer,
    /// Special tokens in front of a text.
    before: Vec<u32>,
    /// Special tokens behind a text.
    after: Vec<u32>,
    max_length: usize,
    /// Most tokens that one byte of text can become; `None` where that is not known.
    tokens_per_byte: Option<usize>,
    /// Texts are lowered first, whatever the tokenizer does.
    lowercase: bool,
    /// How near to a cut in the text a token may change because of it, in bytes.
    margin: usize,
    /// For messages about ids: the file, and the token with the largest id.
    file: std::path::PathBuf,
    largest: (String, u32),
}

impl TextTokenizer {
    /// Token ids of `text` with its special tokens. A text beyond the maximum is cut as transformers
    /// cuts it, special tokens kept, if `truncate` allows that; of a huge text only as much is read as
    /// the maximum needs.
    pub fn encode(&self, text: &str, truncate: bool) -> Result<TokenIds, TokenizeError> {
        self.encode_to(text, truncate, self.0.max_length)
    }

    /// The same with a maximum of its own: `parity.json` was made with one.
    pub(crate) fn encode_to(
        &self,
        text: &str,
        truncate: bool,
        max: usize,
    ) -> Result<TokenIds, TokenizeError> {
        let inner = &*self.0;
        let room = max.saturating_sub(self.specials());
        let mut body = inner.body(text, if truncate { room } else { room + 1 })?;
        if body.ids.len() > room && !truncate {
            return Err(TokenizeError::TooLong {
                tokens: body.ids.len() + self.specials(),
                max,
            });
        }
        if let (Some(bytes_max), false) = (body.cut, truncate) {
            return Err(TokenizeError::TooLarge {
                bytes: text.len(),
                bytes_max,
            });
        }
        body.ids.truncate(room);
        let mut ids = Vec::with_capacity(body.ids.len() + self.specials());
        ids.extend_from_slice(&inner.before);
        ids.extend_from_slice(&body.ids);
        ids.extend_from_slice(&inner.after);
        TokenIds::new(ids).ok_or(TokenizeError::NoTokens)
    }

    /// Most tokens that a text of `text_bytes` can become, special tokens included. Never too small.
    pub fn tokens_bound(&self, text_bytes: usize) -> usize {
        let inner = &*self.0;
        // One more: some tokenizers put a blank in front of the text.
        let bound = inner
            .tokens_per_byte
            .map(|n| text_bytes.saturating_mul(n).saturating_add(1 + self.specials()));
        bound.unwrap_or(usize::MAX).min(inner.max_length)
    }

    /// The longest text in tokens, special tokens included.
    pub fn max_length(&self) -> usize {
        self.0.max_length
    }

    fn specials(&self) -> usize {
        self.0.before.len() + self.0.after.len()
    }

    /// Refuses a tokenizer that can make an id for which the embedding table has no row.
    pub(crate) fn fits(&self, rows: usize) -> Result<(), ModelError> {
        let (token, id) = &self.0.largest;
        if (*id as usize) < rows {
            return Ok(());
        }
        Err(ModelError::Vocabulary {
            file: self.0.file.clone(),
            token: token.clone(),
            id: *id,
            rows,
        })
    }
}

/// What limits a text, besides the position table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// The longest text in tokens.
    pub max_length: usize,
    /// Lower texts first.
    pub lowercase: bool,
}

impl TextTokenizer {
    /// Reads the tokenizer in `folder`.
    pub(crate) fn read(
        folder: &Path,
        family: crate::Family,
        limits: Limits,
    ) -> Result<TextTokenizer, ModelError> {
        let inner = read::read(folder, family, limits)?;
        let specials = inner.before.len() + inner.after.len();
        if limits.max_length <= specials {
            let reason = format!(
                "{specials} special tokens leave no room in a text of {}",
                limits.max_length
            );
            return Err(ModelError::malformed(&inner.file, reason));
        }
        Ok(TextTokenizer(Arc::new(inner)))
    }
}

pub(crate) use read::length_limit;

#[cfg(test)]
mod tests;
