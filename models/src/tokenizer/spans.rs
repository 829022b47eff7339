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
    pub(super) fn of(tokenizer: &Tokenizer, unknown: Option<&str>) -> WordRule {
        let (prefix, own) = match tokenizer.get_model() {
            ModelWrapper::WordPiece(model) => (
                Some(model.continuing_subword_prefix.as_str()),
                Some(model.unk_token.as_str()),
            ),
            ModelWrapper::BPE(model) => (
                model.continuing_subword_prefix.as_deref(),
                model.unk_token.as_deref(),
            ),
            ModelWrapper::WordLevel(model) => (None, Some(model.unk_token.as_str())),
            ModelWrapper::Unigram(_) => (None, None),
        };
        WordRule {
            prefixed: prefix.is_some_and(|prefix| !prefix.is_empty()),
            unknown: unknown.or(own).and_then(|token| tokenizer.token_to_id(token)),
        }
    }
}

impl Inner {
    /// The places of all tokens of `encoding`, whose offsets are bytes of `read`: `text`, perhaps in lower case.
    /// Words are told apart as transformers' `TokenClassificationPipeline` does.
    pub(super) fn spans(&self, encoding: &Encoding, text: &str, read: &str) -> Vec<TokenSpan> {
        let original = Original::of(text, read);
        let rows = encoding
            .get_ids()
            .iter()
            .zip(encoding.get_tokens())
            .zip(encoding.get_offsets());
        let span = |((&id, token), &(start, end)): ((&u32, &String), &(usize, usize))| {
            let (start, end) = (original.place(start), original.place(end));
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

/// Bytes of a text for bytes of its lower case.
enum Original {
    /// Each character is as long as its lower case.
    Same,
    /// For each byte of the lower case, and its end, the first byte of the character that it comes from.
    Moved(Vec<usize>),
}

impl Original {
    fn of(text: &str, read: &str) -> Original {
        let lowered = |c: char| c.to_lowercase().map(char::len_utf8).sum::<usize>();
        if text.len() == read.len() && text.chars().all(|c| c.len_utf8() == lowered(c)) {
            return Original::Same;
        }
        if text == read {
            return Original::Same;
        }
        let mut places = Vec::with_capacity(read.len() + 1);
        for (at, c) in text.char_indices() {
            places.extend(std::iter::repeat_n(at, lowered(c)));
        }
        places.push(text.len());
        Original::Moved(places)
    }

    fn place(&self, byte: usize) -> usize {
        match self {
            Original::Same => byte,
            Original::Moved(places) => places.get(byte).or(places.last()).copied().unwrap_or(byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_of_the_lower_case_has_the_place_of_its_character() {
        // U+0130 is two bytes; its lower case has three.
        let text = "\u{130}a";
        let read = text.to_lowercase();
        let original = Original::of(text, &read);
        assert_eq!([0, 1, 3, 4].map(|byte| original.place(byte)), [0, 0, 2, 3]);
        assert!(matches!(Original::of("abc", "abc"), Original::Same));
        assert!(matches!(Original::of("ABC", "abc"), Original::Same));
    }

    #[test]
    fn a_blank_on_either_side_begins_a_word() {
        assert!(blank_at("a b", 1) && blank_at("a b", 2));
        assert!(!blank_at("ab", 1) && !blank_at("a,b", 1));
    }
}
