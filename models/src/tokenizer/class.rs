//! Classes of tokenizers: settings that a class takes from the files beside `tokenizer.json`, and forms of that file
//! that mean the same to every release of transformers.
//!
//! transformers 5 builds the tokenizer of a class anew from its vocabulary, and older releases take `tokenizer.json`
//! as it is. So a file whose other parts are not those of its class has two meanings, and is refused.

use std::path::Path;

use serde_json::Value;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{Model, ModelWrapper, NormalizerWrapper, PreTokenizerWrapper, Tokenizer};

use super::settings::Settings;
use crate::{Family, ModelError};

/// A class by its name in transformers, without `Fast`.
pub(super) struct Class {
    names: &'static [&'static str],
    pub kind: Kind,
    /// Texts of the special tokens, in the order of [`super::settings::NAMED`]; empty where the class has none.
    tokens: [&'static str; 7],
    /// True where the mask takes the blank before it.
    pub mask_strips: bool,
    /// More special tokens, where the vocabulary has them.
    pub extra: &'static [&'static str],
}

/// The way in which a class splits a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// As `tokenizer.json` says.
    Whole,
    /// BERT's words and pieces of words.
    WordPiece,
    /// GPT-2's pairs of bytes.
    ByteLevel,
    /// Pieces of `SentencePiece`, the special tokens at the places that fairseq gave them.
    Unigram,
}

const WHOLE: Class = Class {
    names: &[
        "PreTrainedTokenizerFast",
        "PreTrainedTokenizer",
        "TokenizersBackend",
        "PythonBackend",
    ],
    kind: Kind::Whole,
    tokens: [""; 7],
    mask_strips: false,
    extra: &[],
};

const BERT: Class = Class {
    names: &[
        "BertTokenizer",
        "DistilBertTokenizer",
        "ElectraTokenizer",
        "MobileBertTokenizer",
        "SqueezeBertTokenizer",
        "ConvBertTokenizer",
        "LayoutLMTokenizer",
        "LxmertTokenizer",
        "DPRContextEncoderTokenizer",
        "DPRQuestionEncoderTokenizer",
    ],
    kind: Kind::WordPiece,
    tokens: ["", "", "[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]"],
    ..WHOLE
};

const MPNET: Class = Class {
    names: &["MPNetTokenizer"],
    kind: Kind::WordPiece,
    tokens: ["<s>", "</s>", "[UNK]", "</s>", "<pad>", "<s>", "<mask>"],
    mask_strips: true,
    ..WHOLE
};

const ROBERTA: Class = Class {
    names: &[
        "RobertaTokenizer",
        "BartTokenizer",
        "LEDTokenizer",
        "LongformerTokenizer",
        "MvpTokenizer",
    ],
    kind: Kind::ByteLevel,
    tokens: ["<s>", "</s>", "<unk>", "</s>", "<pad>", "<s>", "<mask>"],
    ..WHOLE
};

const XLM_ROBERTA: Class = Class {
    names: &["XLMRobertaTokenizer"],
    kind: Kind::Unigram,
    ..ROBERTA
};

const CAMEMBERT: Class = Class {
    names: &["CamembertTokenizer"],
    kind: Kind::Unigram,
    mask_strips: true,
    extra: &["<s>NOTUSED", "</s>NOTUSED", "<unk>NOTUSED"],
    ..ROBERTA
};

const CLASSES: [&Class; 6] = [&BERT, &MPNET, &ROBERTA, &XLM_ROBERTA, &CAMEMBERT, &WHOLE];

impl Class {
    /// The class that `tokenizer_config.json` names, else `config.json`, else that of the family.
    pub fn of(
        settings: &Settings,
        config: Option<&str>,
        family: Family,
    ) -> Result<&'static Class, ModelError> {
        let named = settings.switches.tokenizer_class.as_deref().or(config);
        let name = named.unwrap_or_else(|| family.tokenizer_class());
        let plain = match name.strip_suffix("Fast") {
            Some(plain) if plain != "PreTrainedTokenizer" => plain,
            _ => name,
        };
        let found = CLASSES.into_iter().find(|class| class.names.contains(&plain));
        found.ok_or_else(|| {
            let names: Vec<&str> = CLASSES.iter().flat_map(|class| class.names).copied().collect();
            ModelError::unsupported(&settings.file, "tokenizer_class", name, &names.join(", "))
        })
    }

    pub fn name(&self) -> &'static str {
        self.names.first().copied().unwrap_or_default()
    }

    /// Text of the special token `name` where no file gives one; empty where the class has none.
    pub fn token(&self, name: &str) -> &'static str {
        let at = super::settings::NAMED.iter().position(|known| *known == name);
        at.and_then(|at| self.tokens.get(at)).copied().unwrap_or_default()
    }

    /// Names of the special tokens before and after a text.
    pub fn around(&self) -> [&'static str; 2] {
        match self.kind {
            Kind::Unigram => ["bos_token", "eos_token"],
            _ => ["cls_token", "sep_token"],
        }
    }

    /// Gives the tokenizer of `file` the settings of its class, or refuses a form that has two meanings.
    pub fn apply(
        &self,
        file: &Path,
        tokenizer: &mut Tokenizer,
        settings: &Settings,
    ) -> Result<(), ModelError> {
        let applied = match self.kind {
            Kind::Whole => return whole(file, tokenizer, settings),
            Kind::WordPiece => self.word_piece(tokenizer, settings),
            Kind::ByteLevel => byte_level(tokenizer, settings),
            Kind::Unigram => self.unigram(tokenizer, settings),
        };
        applied.map_err(|Other(part, found, expected)| {
            let name = self.name();
            let supported =
                format!("{expected} with tokenizer_class {name}, or tokenizer_class PreTrainedTokenizerFast");
            ModelError::unsupported(file, part, found, &supported)
        })
    }

    fn word_piece(&self, tokenizer: &mut Tokenizer, settings: &Settings) -> Result<(), Other> {
        let form = Form::of(tokenizer);
        if !form.is_bert_normalizer() {
            return Err(Other(
                "normalizer",
                form.normalizer(),
                "BertNormalizer that cleans text",
            ));
        }
        if form.pre_tokenizer["type"] != "BertPreTokenizer" {
            return Err(Other("pre_tokenizer", form.pre_tokenizer(), "BertPreTokenizer"));
        }
        let unk_token = settings.text("unk_token", self.token("unk_token"));
        if !is_word_piece(tokenizer.get_model(), unk_token) {
            let expected = "WordPiece with ##, 100 characters a word and the unk_token of the settings";
            return Err(Other("model", "another".to_owned(), expected));
        }
        let set = tokenizer.with_normalizer(Some(bert_normalizer(settings)));
        set.map(drop)
            .map_err(|e| Other("added_tokens", e.to_string(), "tokens that can be normalised"))
    }

    fn unigram(&self, tokenizer: &Tokenizer, settings: &Settings) -> Result<(), Other> {
        if settings.switches.add_prefix_space == Some(false) {
            return Err(Other("add_prefix_space", false.to_string(), "true"));
        }
        let form = Form::of(tokenizer);
        if !form.is_sentence_piece() {
            let found = format!("{}, {}", form.normalizer(), form.pre_tokenizer());
            let part = "normalizer and pre_tokenizer";
            return Err(Other(part, found, "those of SentencePiece"));
        }
        if !self.is_unigram(tokenizer.get_model(), settings) {
            let expected = "Unigram whose unk_token has its usual place";
            return Err(Other("model", "another".to_owned(), expected));
        }
        Ok(())
    }

    fn is_unigram(&self, model: &ModelWrapper, settings: &Settings) -> bool {
        let ModelWrapper::Unigram(unigram) = model else {
            return false;
        };
        let unknown = unigram.token_to_id(settings.text("unk_token", self.token("unk_token")));
        let in_place = if self.name() == XLM_ROBERTA.name() {
            unknown == Some(3)
        } else {
            unknown.is_some()
        };
        in_place && !unigram.byte_fallback()
    }
}

/// A part of `tokenizer.json` that is not that of the class: its name, its value, the value that would be.
struct Other(&'static str, String, &'static str);

fn byte_level(tokenizer: &mut Tokenizer, settings: &Settings) -> Result<(), Other> {
    let form = Form::of(tokenizer);
    if !form.normalizer.is_null() {
        return Err(Other("normalizer", form.normalizer(), "none"));
    }
    let part = "pre_tokenizer";
    let Some(PreTokenizerWrapper::ByteLevel(found)) = tokenizer.get_pre_tokenizer() else {
        return Err(Other(part, form.pre_tokenizer(), "ByteLevel"));
    };
    if !found.use_regex {
        return Err(Other(
            part,
            "ByteLevel without its pattern".to_owned(),
            "ByteLevel",
        ));
    }
    if !is_byte_pairs(tokenizer.get_model()) {
        let expected = "BPE without prefix, suffix and fallback, which uses its merges";
        return Err(Other("model", "another".to_owned(), expected));
    }
    let spaced = settings.switches.add_prefix_space.unwrap_or(false);
    let byte_level = ByteLevel::new(spaced, found.trim_offsets, true);
    tokenizer.with_pre_tokenizer(Some(byte_level));
    Ok(())
}

/// BERT's normaliser with the settings of the files.
pub(super) fn bert_normalizer(settings: &Settings) -> BertNormalizer {
    let switches = &settings.switches;
    BertNormalizer::new(
        true,
        switches.tokenize_chinese_chars.unwrap_or(true),
        switches.strip_accents,
        switches.do_lower_case.unwrap_or(true),
    )
}

/// Sets the normaliser, under which added tokens are matched anew.
pub(super) fn set(
    file: &Path,
    tokenizer: &mut Tokenizer,
    normalizer: impl Into<NormalizerWrapper>,
) -> Result<(), ModelError> {
    let set = tokenizer.with_normalizer(Some(normalizer));
    set.map(|_| ()).map_err(|e| ModelError::malformed(file, e))
}

/// Older releases give a file without a class of its own the blank that `tokenizer_config.json` asks for, newer ones
/// do not.
fn whole(file: &Path, tokenizer: &Tokenizer, settings: &Settings) -> Result<(), ModelError> {
    let Some(PreTokenizerWrapper::ByteLevel(found)) = tokenizer.get_pre_tokenizer() else {
        return Ok(());
    };
    match settings.switches.add_prefix_space {
        Some(wanted) if wanted != found.add_prefix_space => {
            let supported = format!("{wanted}, as tokenizer_config.json has it, or no such key there");
            let found = found.add_prefix_space;
            Err(ModelError::unsupported(
                file,
                "add_prefix_space",
                found,
                &supported,
            ))
        }
        _ => Ok(()),
    }
}

fn is_word_piece(model: &ModelWrapper, unk_token: &str) -> bool {
    let ModelWrapper::WordPiece(words) = model else {
        return false;
    };
    words.unk_token == unk_token
        && words.continuing_subword_prefix == "##"
        && words.max_input_chars_per_word == 100
}

fn is_byte_pairs(model: &ModelWrapper) -> bool {
    let ModelWrapper::BPE(pairs) = model else {
        return false;
    };
    let empty = |text: &Option<String>| text.as_ref().is_none_or(String::is_empty);
    pairs.dropout.is_none_or(|share| share == 0.0)
        && empty(&pairs.continuing_subword_prefix)
        && empty(&pairs.end_of_word_suffix)
        && !pairs.byte_fallback
        && !pairs.ignore_merges
}

/// The parts of a `tokenizer.json` before its model.
struct Form {
    normalizer: Value,
    pre_tokenizer: Value,
}

impl Form {
    fn of(tokenizer: &Tokenizer) -> Form {
        // A part that cannot be written is none of those that are compared below.
        let written = |part: Result<Value, serde_json::Error>| part.unwrap_or(Value::Bool(false));
        Form {
            normalizer: written(serde_json::to_value(tokenizer.get_normalizer())),
            pre_tokenizer: written(serde_json::to_value(tokenizer.get_pre_tokenizer())),
        }
    }

    fn normalizer(&self) -> String {
        part_name(&self.normalizer)
    }

    fn pre_tokenizer(&self) -> String {
        part_name(&self.pre_tokenizer)
    }

    fn is_bert_normalizer(&self) -> bool {
        self.normalizer["type"] == "BertNormalizer" && self.normalizer["clean_text"] == true
    }

    /// True for the forms that transformers has written for `SentencePiece`: they drop blanks at both ends and read
    /// several as one, by the split, or by a map that makes blanks of tabs and a replacement.
    fn is_sentence_piece(&self) -> bool {
        let (mut mapped, mut merges) = (false, false);
        for part in parts(&self.normalizer, "normalizers") {
            match part["type"].as_str() {
                Some("Precompiled") => mapped = true,
                Some("Strip") if part["strip_left"] == false => {}
                Some("Replace") => {
                    let is_blank = part["content"] == " " || part["content"] == "\u{2581}";
                    if part["pattern"]["Regex"] != " {2,}" || !is_blank {
                        return false;
                    }
                    merges = true;
                }
                _ => return false,
            }
        }
        let marks = |part: &Value| {
            part["type"] == "Metaspace"
                && part["replacement"] == "\u{2581}"
                && part["prepend_scheme"] == "always"
                && part["split"] != false
        };
        match parts(&self.pre_tokenizer, "pretokenizers")[..] {
            [first, second] => first["type"] == "WhitespaceSplit" && marks(second),
            [only] => mapped && merges && marks(only),
            _ => false,
        }
    }
}

/// A part itself, or the parts of a sequence; nothing where there is none.
fn parts<'a>(part: &'a Value, key: &str) -> Vec<&'a Value> {
    match part {
        Value::Null => Vec::new(),
        sequence if sequence["type"] == "Sequence" => sequence[key]
            .as_array()
            .map(|list| list.iter().collect())
            .unwrap_or_default(),
        one => vec![one],
    }
}

fn part_name(part: &Value) -> String {
    part["type"].as_str().unwrap_or("none").to_owned()
}
