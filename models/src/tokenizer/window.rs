//! Tokens of the start or end of a text, read only as far as needed.
//!
//! A tokenizer splits its text into words and handles each word alone, so a cut changes only the words near it.
//! A part of the text is tokenized and the words at its cut are dropped; the rest equals the tokens of the whole text.
//! Where too few remain, the part grows.

use tokenizers::Encoding;

use super::settings::Side;
use super::{Inner, TokenizeError};

/// Bytes of text read for each wanted token. English has about four, so the first part suffices.
const BYTES_PER_TOKEN: usize = 16;

/// The shortest part worth cutting.
pub(super) const WINDOW_BYTES_MIN: usize = 4 << 10;

/// The longest part, so that no text costs more than a bounded time. A text with too few tokens in it, such
/// as one endless word or endless blanks, is judged by this part alone.
pub(super) const WINDOW_BYTES_MAX: usize = 256 << 10;

/// Token ids of a text without its special tokens.
pub(super) struct Body {
    pub ids: Vec<u32>,
    /// Bytes that were read, where the text was not read as a whole although more tokens were wanted.
    pub cut: Option<usize>,
}

impl Inner {
    /// At least the `wanted` ids of `text` that a cut keeps, or all where it has fewer.
    pub(super) fn body(&self, text: &str, wanted: usize) -> Result<Body, TokenizeError> {
        let most = self.bytes_max;
        let mut window = (wanted * BYTES_PER_TOKEN).clamp(WINDOW_BYTES_MIN, most);
        // A part saves nothing where it is most of the text.
        while window < text.len() / 2 || (window == most && window < text.len()) {
            let mut part = self.part(text, window)?;
            if part.settled >= wanted {
                match self.side {
                    Side::Right => part.ids.truncate(part.settled),
                    Side::Left => drop(part.ids.drain(..part.ids.len() - part.settled)),
                }
                return Ok(Body {
                    ids: part.ids,
                    cut: None,
                });
            }
            if window == most {
                return Ok(Body {
                    ids: part.ids,
                    cut: Some(window),
                });
            }
            window = (window * 4).min(most);
        }
        let encoding = self.tokenizer.encode_fast(text, false).map_err(|e| failed(&e))?;
        Ok(Body {
            ids: encoding.get_ids().to_vec(),
            cut: None,
        })
    }

    /// The ids of `window` bytes at the end of `text` that a cut keeps.
    pub(super) fn part(&self, text: &str, window: usize) -> Result<PartIds, TokenizeError> {
        let part = match self.side {
            Side::Right => &text[..text.floor_char_boundary(window)],
            Side::Left => &text[text.ceil_char_boundary(text.len().saturating_sub(window))..],
        };
        let encoding = self.tokenizer.encode(part, false).map_err(|e| failed(&e))?;
        let settled = match self.side {
            Side::Right => settled_before(&encoding, part.len().saturating_sub(self.margin)),
            Side::Left => settled_after(&encoding, self.margin),
        };
        Ok(PartIds {
            ids: encoding.get_ids().to_vec(),
            settled,
        })
    }
}

/// Number of the first ids that a cut at the end cannot have changed: it may change words that end behind `limit`,
/// and the last word.
fn settled_before(encoding: &Encoding, limit: usize) -> usize {
    let words = encoding.get_word_ids();
    let near = encoding
        .get_offsets()
        .iter()
        .position(|&(_, end)| end > limit)
        .unwrap_or(words.len());
    let unsettled = words.get(near).or(words.last()).copied().flatten();
    words.iter().position(|&w| w == unsettled).unwrap_or(0).min(near)
}

/// Number of the last ids that a cut at the start cannot have changed: it may change words that begin before `limit`,
/// and the first word.
fn settled_after(encoding: &Encoding, limit: usize) -> usize {
    let words = encoding.get_word_ids();
    let near = encoding
        .get_offsets()
        .iter()
        .rposition(|&(start, _)| start < limit);
    let unsettled = near
        .and_then(|near| words.get(near))
        .or(words.first())
        .copied()
        .flatten();
    let last = words.iter().rposition(|&w| w == unsettled);
    let changed = last.max(near).map_or(0, |at| at + 1);
    words.len() - changed
}

/// The ids of a text that continues behind a cut.
pub(super) struct PartIds {
    pub ids: Vec<u32>,
    /// Number of ids, counted from the kept end, that the rest of the text cannot change.
    pub settled: usize,
}

fn failed(e: &tokenizers::Error) -> TokenizeError {
    TokenizeError::Failed(e.to_string())
}
