//! Text to token ids: the model's own tokenizer and special tokens, truncated to its longest text.

mod prefix;
mod read;
mod spans;

use std::path::Path;
use std::sync::Arc;

use penstock_core::TokenIds;
use tokenizers::Tokenizer;

use crate::ModelError;

/// Reason why a text has no token ids.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenizeError {
    /// The text is longer than the model's maximum, and truncation is not allowed.
    #[error(
        "text of at least {tokens} tokens is longer than the model's {max}; shorten it or allow truncation"
    )]
    TooLong {
        /// Tokens counted until the limit was passed, special tokens included.
        tokens: usize,
        /// The model's maximum.
        max: usize,
    },
    /// The text is so large, and holds so few tokens, that it was not read to its end.
    #[error(
        "text of {bytes} bytes holds few tokens in its first {bytes_max}; shorten it or allow truncation"
    )]
    TooLarge {
        /// Size of the text.
        bytes: usize,
        /// Bytes that were read.
        bytes_max: usize,
    },
    /// The tokenizer has no special tokens and produces no token for this text.
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
    /// Special tokens before a text.
    before: Vec<u32>,
    /// Special tokens after a text.
    after: Vec<u32>,
    max_length: usize,
    /// Most tokens that one byte of text can become; `None` where unknown.
    tokens_per_byte: Option<usize>,
    /// True where texts are converted to lower case first, whatever the tokenizer does.
    lowercase: bool,
    /// Distance from a cut in the text, in bytes, within which the cut may change a token.
    margin: usize,
    /// File, for messages about ids.
    file: std::path::PathBuf,
    /// Token with the largest id.
    largest: (String, u32),
    words: WordRule,
}

/// A text as token ids, with the places of its tokens.
pub struct Spanned {
    /// Token ids, special tokens included.
    pub ids: TokenIds,
    /// Place of each token but the special ones.
    pub spans: Vec<TokenSpan>,
    /// Number of special tokens before the first of `spans`.
    pub before: usize,
}

impl TextTokenizer {
    /// Token ids of `text` with its special tokens. With `truncate`, a text beyond the maximum is cut as in
    /// transformers, special tokens kept. A huge text is read only as far as the maximum needs.
    pub fn encode(&self, text: &str, truncate: bool) -> Result<TokenIds, TokenizeError> {
        self.encode_to(text, truncate, self.0.max_length)
    }

    /// Like [`TextTokenizer::encode`], with the places of the tokens. It takes about twice as long.
    pub fn encode_spans(&self, text: &str, truncate: bool) -> Result<Spanned, TokenizeError> {
        let (ids, spans) = self.encode_body(text, truncate, self.0.max_length, true)?;
        Ok(Spanned {
            ids,
            spans,
            before: self.0.before.len(),
        })
    }

    /// Like [`TextTokenizer::encode`], with the given maximum: `parity.json` has its own.
    pub(crate) fn encode_to(
        &self,
        text: &str,
        truncate: bool,
        max: usize,
    ) -> Result<TokenIds, TokenizeError> {
        Ok(self.encode_body(text, truncate, max, false)?.0)
    }

    fn encode_body(
        &self,
        text: &str,
        truncate: bool,
        max: usize,
        spans: bool,
    ) -> Result<(TokenIds, Vec<TokenSpan>), TokenizeError> {
        let inner = &*self.0;
        let room = max.saturating_sub(self.specials());
        let mut body = inner.body(text, if truncate { room } else { room + 1 }, spans)?;
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
        body.spans.truncate(room);
        let mut ids = Vec::with_capacity(body.ids.len() + self.specials());
        ids.extend_from_slice(&inner.before);
        ids.extend_from_slice(&body.ids);
        ids.extend_from_slice(&inner.after);
        let ids = TokenIds::new(ids).ok_or(TokenizeError::NoTokens)?;
        Ok((ids, body.spans))
    }

    /// Upper bound of the tokens of a text of `text_bytes` bytes, special tokens included.
    pub fn tokens_bound(&self, text_bytes: usize) -> usize {
        let inner = &*self.0;
        // One token is added because some tokenizers put a blank before the text.
        let bound = inner
            .tokens_per_byte
            .map(|n| text_bytes.saturating_mul(n).saturating_add(1 + self.specials()));
        bound.unwrap_or(usize::MAX).min(inner.max_length)
    }

    /// Length of the longest text in tokens, special tokens included.
    pub fn max_length(&self) -> usize {
        self.0.max_length
    }

    fn specials(&self) -> usize {
        self.0.before.len() + self.0.after.len()
    }

    /// Refuses a tokenizer that can produce an id for which the embedding table has no row.
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

/// Settings of a text, besides those of the tokenizer itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Length of the longest text in tokens.
    pub max_length: usize,
    /// Convert texts to lower case first.
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
pub use spans::TokenSpan;
use spans::WordRule;

#[cfg(test)]
mod tests;
