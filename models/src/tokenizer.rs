//! Text to token ids: the model's own tokenizer, prompt and special tokens, truncated to its longest text.

mod bounds;
mod class;
mod prompt;
mod read;
mod settings;
mod window;

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use penstock_core::TokenIds;
use tokenizers::Tokenizer;

use crate::sentence::Prompts;
use crate::{Family, ModelError};

pub use prompt::{Prompt, PromptError};
pub(crate) use settings::Settings;
use settings::Side;

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
    /// An id that the tokenizer never gives.
    #[error("token id {id} at place {place} is not in the model's vocabulary, whose largest is {largest}")]
    UnknownId {
        /// The id.
        id: u32,
        /// Its place among the ids of its input, from 0.
        place: usize,
        /// Largest id of the vocabulary.
        largest: u32,
    },
    /// Ids without any element.
    #[error("the array of token ids is empty; it holds at least the special tokens of a text")]
    NoIds,
    /// More ids than the model takes, and truncation is not allowed.
    #[error("{tokens} token ids are more than the model's {max}; send fewer or allow truncation")]
    TooManyIds {
        /// Number of ids.
        tokens: usize,
        /// The model's maximum.
        max: usize,
    },
    /// The tokenizer failed.
    #[error("tokenizer: {0}")]
    Failed(String),
}

/// A model's tokenizer. Clones share it, and any number of threads may use it at once.
#[derive(Clone)]
pub struct TextTokenizer {
    inner: Arc<Inner>,
    /// Text in front of every text.
    prompt: Arc<str>,
}

struct Inner {
    tokenizer: Tokenizer,
    /// Special tokens before a text.
    before: Vec<u32>,
    /// Special tokens after a text.
    after: Vec<u32>,
    /// The side of a long text that is cut off.
    side: Side,
    max_length: usize,
    /// Most tokens that one byte of text can become; `None` where unknown.
    tokens_per_byte: Option<usize>,
    /// Most bytes of a text that are read at a time.
    bytes_max: usize,
    /// Distance from a cut in the text, in bytes, within which the cut may change a token.
    margin: usize,
    /// The model's prompts.
    prompts: Prompts,
    /// The file that says that the tokens of a prompt take no part in pooling.
    prompt_excluded: Option<PathBuf>,
    /// File, for messages about ids.
    file: PathBuf,
    /// Token with the largest id.
    largest: (String, u32),
}

impl TextTokenizer {
    /// Token ids of `text` with its special tokens. With `truncate`, a text beyond the maximum is cut as in
    /// transformers, special tokens kept. A huge text is read only as far as the maximum needs.
    pub fn encode(&self, text: &str, truncate: bool) -> Result<TokenIds, TokenizeError> {
        self.encode_to(text, truncate, self.inner.max_length)
    }

    /// Like [`TextTokenizer::encode`], with the given maximum: `parity.json` has its own.
    pub(crate) fn encode_to(
        &self,
        text: &str,
        truncate: bool,
        max: usize,
    ) -> Result<TokenIds, TokenizeError> {
        let inner = &*self.inner;
        let text = match &*self.prompt {
            "" => Cow::Borrowed(text),
            prompt => Cow::Owned([prompt, text].concat()),
        };
        let room = max.saturating_sub(self.specials());
        let mut body = inner.body(&text, if truncate { room } else { room + 1 })?;
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
        match inner.side {
            Side::Right => body.ids.truncate(room),
            Side::Left => drop(body.ids.drain(..body.ids.len().saturating_sub(room))),
        }
        let mut ids = Vec::with_capacity(body.ids.len() + self.specials());
        ids.extend_from_slice(&inner.before);
        ids.extend_from_slice(&body.ids);
        ids.extend_from_slice(&inner.after);
        TokenIds::new(ids).ok_or(TokenizeError::NoTokens)
    }

    /// Checks token ids that this tokenizer gave, special tokens included. With `truncate`, ids beyond the maximum
    /// are cut as those of a text: the special tokens at the end stay.
    pub fn check(&self, mut ids: Vec<u32>, truncate: bool) -> Result<TokenIds, TokenizeError> {
        let Inner {
            after,
            max_length,
            largest: (_, largest),
            ..
        } = &*self.inner;
        if let Some((place, &id)) = ids.iter().enumerate().find(|(_, id)| *id > largest) {
            return Err(TokenizeError::UnknownId {
                id,
                place,
                largest: *largest,
            });
        }
        if ids.len() > *max_length {
            if !truncate {
                return Err(TokenizeError::TooManyIds {
                    tokens: ids.len(),
                    max: *max_length,
                });
            }
            let special = if ids.ends_with(after) { after.len() } else { 0 };
            ids.drain(max_length - special..ids.len() - special);
        }
        TokenIds::new(ids).ok_or(TokenizeError::NoIds)
    }

    /// Upper bound of the tokens of a text of `text_bytes` bytes, prompt and special tokens included.
    pub fn tokens_bound(&self, text_bytes: usize) -> usize {
        let inner = &*self.inner;
        let text_bytes = text_bytes.saturating_add(self.prompt.len());
        // One token is added because some tokenizers put a blank before the text.
        let bound = inner
            .tokens_per_byte
            .map(|n| text_bytes.saturating_mul(n).saturating_add(1 + self.specials()));
        bound.unwrap_or(usize::MAX).min(inner.max_length)
    }

    /// Length of the longest text in tokens, special tokens included.
    pub fn max_length(&self) -> usize {
        self.inner.max_length
    }

    fn specials(&self) -> usize {
        self.inner.before.len() + self.inner.after.len()
    }

    /// Refuses a tokenizer that can produce an id for which the embedding table has no row.
    pub(crate) fn fits(&self, rows: usize) -> Result<(), ModelError> {
        let (token, id) = &self.inner.largest;
        if (*id as usize) < rows {
            return Ok(());
        }
        Err(ModelError::Vocabulary {
            file: self.inner.file.clone(),
            token: token.clone(),
            id: *id,
            rows,
        })
    }
}

/// Choices for a tokenizer that its own files do not make.
pub(crate) struct Plan<'a> {
    pub family: Family,
    /// The class that `config.json` names.
    pub class: Option<&'a str>,
    pub settings: &'a Settings,
    /// Length of the longest text in tokens.
    pub max_length: usize,
    /// Convert texts to lower case first.
    pub lowercase: bool,
    pub prompts: Prompts,
    pub prompt_excluded: Option<PathBuf>,
}

impl TextTokenizer {
    /// Reads the tokenizer in `folder`. Texts get the default prompt of `plan`.
    pub(crate) fn read(folder: &Path, plan: Plan<'_>) -> Result<TextTokenizer, ModelError> {
        let prompt = Arc::from(plan.prompts.standard());
        let inner = read::read(folder, plan)?;
        let specials = inner.before.len() + inner.after.len();
        if inner.max_length <= specials {
            let reason = format!(
                "{specials} special tokens leave no room in a text of {}",
                inner.max_length
            );
            return Err(ModelError::malformed(&inner.file, reason));
        }
        Ok(TextTokenizer {
            inner: Arc::new(inner),
            prompt,
        })
    }
}

#[cfg(test)]
mod tests;
