//! Tokens of the start of a text, read only as far as needed.
//!
//! A tokenizer splits its text into words and handles each word alone, so a cut changes only the words near it.
//! A prefix is tokenized and the words at its end are dropped; the rest equals the tokens of the whole text.
//! Where too few remain, the prefix grows.

use super::{Inner, TokenSpan, TokenizeError};

/// Bytes of text read for each wanted token. English has about four, so the first prefix suffices.
const BYTES_PER_TOKEN: usize = 16;

/// The shortest prefix worth cutting.
const PREFIX_BYTES_MIN: usize = 4 << 10;

/// The longest prefix, so that no text costs more than a bounded time. A text with too few tokens in it, such
/// as one endless word or endless blanks, is judged by this prefix alone.
pub(super) const PREFIX_BYTES_MAX: usize = 256 << 10;

/// Token ids of a text without its special tokens.
pub(super) struct Body {
    pub ids: Vec<u32>,
    /// Place of each token, where it was asked for.
    pub spans: Vec<TokenSpan>,
    /// Bytes that were read, where the text was not read to its end although more tokens were wanted.
    pub cut: Option<usize>,
}

impl Inner {
    /// At least the first `wanted` ids of `text`, or all where it has fewer; with their places where `spans` asks.
    pub(super) fn body(&self, text: &str, wanted: usize, spans: bool) -> Result<Body, TokenizeError> {
        let mut window = (wanted * BYTES_PER_TOKEN).clamp(PREFIX_BYTES_MIN, PREFIX_BYTES_MAX);
        // A prefix saves nothing where it is most of the text.
        while window < text.len() / 2 || (window == PREFIX_BYTES_MAX && window < text.len()) {
            let mut read = self.prefix(&text[..text.floor_char_boundary(window)], spans)?;
            if read.settled >= wanted {
                read.all.truncate(read.settled);
                read.spans.truncate(read.settled);
                return Ok(Body {
                    ids: read.all,
                    spans: read.spans,
                    cut: None,
                });
            }
            if window == PREFIX_BYTES_MAX {
                return Ok(Body {
                    ids: read.all,
                    spans: read.spans,
                    cut: Some(window),
                });
            }
            window = (window * 4).min(PREFIX_BYTES_MAX);
        }
        let lowered = self.lowered(text);
        // Only `encode` computes places, and takes longer for it.
        let encoding = if spans {
            self.tokenizer.encode(&*lowered, false)
        } else {
            self.tokenizer.encode_fast(&*lowered, false)
        };
        let encoding = encoding.map_err(|e| failed(&e))?;
        Ok(Body {
            ids: encoding.get_ids().to_vec(),
            spans: if spans {
                self.spans(&encoding, text, &lowered)
            } else {
                Vec::new()
            },
            cut: None,
        })
    }

    /// The ids of `text`, which ends in a cut, and the number of them that the cut cannot have changed.
    pub(super) fn prefix(&self, text: &str, spans: bool) -> Result<PrefixIds, TokenizeError> {
        let lowered = self.lowered(text);
        let encoding = self.tokenizer.encode(&*lowered, false).map_err(|e| failed(&e))?;
        let limit = lowered.len().saturating_sub(self.margin);
        let words = encoding.get_word_ids();
        // The cut may change words that end near it, and the last word.
        let near = encoding
            .get_offsets()
            .iter()
            .position(|&(_, end)| end > limit)
            .unwrap_or(words.len());
        let unsettled = words.get(near).or(words.last()).copied().flatten();
        let settled = words.iter().position(|&w| w == unsettled).unwrap_or(0).min(near);
        Ok(PrefixIds {
            all: encoding.get_ids().to_vec(),
            spans: if spans {
                self.spans(&encoding, text, &lowered)
            } else {
                Vec::new()
            },
            settled,
        })
    }

    fn lowered<'t>(&self, text: &'t str) -> std::borrow::Cow<'t, str> {
        if self.lowercase {
            text.to_lowercase().into()
        } else {
            text.into()
        }
    }
}

/// The ids of a text that continues after a cut.
pub(super) struct PrefixIds {
    pub all: Vec<u32>,
    /// Place of each token, where it was asked for.
    pub spans: Vec<TokenSpan>,
    /// Number of ids that the rest of the text cannot change.
    pub settled: usize,
}

fn failed(e: &tokenizers::Error) -> TokenizeError {
    TokenizeError::Failed(e.to_string())
}
