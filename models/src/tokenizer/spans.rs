//! Places of tokens in their text, for heads that label tokens.

use tokenizers::{Encoding, ModelWrapper, Tokenizer};

use super::Inner;

/// The place of one token in its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenSpan {
    /// First byte. Two tokens that share a character have the same place.
    pub start: u32,
    /// Byte after the last one.
    pub end: u32,
    /// True where the token continues the word of the token before it.
    pub continues: bool,
}

/// Rule that tells a token in the midst of a word.
#[derive(Clone, Copy, Debug)]
pub(super) struct WordRule {
    /// True where a token's own spelling shows that it continues a word (`##ing`).
    prefixed: bool,
    /// Token of an unknown word, which never continues one.
    unknown: Option<u32>,
}

impl WordRule {
    /// The rule of a tokenizer whose token for unknown words is `unknown`.
    pub(super) fn of(tokenizer: &Tokenizer, unknown: &str) -> WordRule {
        let prefix = match tokenizer.get_model() {
            ModelWrapper::WordPiece(model) => Some(model.continuing_subword_prefix.as_str()),
            ModelWrapper::BPE(model) => model.continuing_subword_prefix.as_deref(),
            ModelWrapper::WordLevel(_) | ModelWrapper::Unigram(_) => None,
        };
        WordRule {
            prefixed: prefix.is_some_and(|prefix| !prefix.is_empty()),
            unknown: tokenizer.token_to_id(unknown),
        }
    }
}

impl Inner {
    /// The places in `text` of all tokens of `encoding`, which was read from byte `begin` on; none where they are not
    /// `wanted`. Words are told apart as transformers' `TokenClassificationPipeline` does.
    pub(super) fn spans(
        &self,
        encoding: &Encoding,
        text: &str,
        begin: usize,
        wanted: bool,
    ) -> Vec<TokenSpan> {
        if !wanted {
            return Vec::new();
        }
        let rows = encoding
            .get_ids()
            .iter()
            .zip(encoding.get_tokens())
            .zip(encoding.get_offsets());
        let span = |((&id, token), &(start, end)): ((&u32, &String), &(usize, usize))| {
            let (start, end) = (begin + start, begin + end);
            let continues = if self.words.unknown == Some(id) {
                false
            } else if self.words.prefixed {
                let shown = text.get(start..end).unwrap_or_default();
                token.chars().count() != shown.chars().count()
            } else {
                start > 0 && !blank_at(text, start)
            };
            TokenSpan {
                start: start as u32,
                end: end as u32,
                continues,
            }
        };
        rows.map(span).collect()
    }
}

/// True where a blank stands at byte `at` or before it.
fn blank_at(text: &str, at: usize) -> bool {
    let (before, behind) = text.split_at_checked(at).unwrap_or((text, ""));
    before.ends_with(' ') || behind.starts_with(' ')
}

#[cfg(test)]
mod tests {
    use super::blank_at;

    #[test]
    fn a_blank_on_either_side_begins_a_word() {
        assert!(blank_at("a b", 1) && blank_at("a b", 2));
        assert!(!blank_at("ab", 1) && !blank_at("a,b", 1));
    }
}
