//! Reading a tokenizer: `tokenizer.json`, or `vocab.txt`, with the settings beside it.

use std::path::Path;

use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::{Lowercase, Sequence};
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::utils::truncation::TruncationDirection;
use tokenizers::{AddedToken, Encoding, ModelWrapper, NormalizerWrapper, Tokenizer};

use super::class::{Class, Kind, bert_normalizer, set};
use super::settings::{NAMED, Settings, Side, Token};
use super::{Inner, Plan, bounds};
use crate::guard::guard;
use crate::{ModelError, files};

/// Reads the tokenizer in `folder`.
pub(super) fn read(folder: &Path, plan: Plan<'_>) -> Result<Inner, ModelError> {
    let settings = plan.settings;
    let class = Class::of(settings, plan.class, plan.family)?;
    let (json, vocabulary) = (folder.join("tokenizer.json"), folder.join("vocab.txt"));
    let source = if let Some(bytes) = files::read(&json)? {
        from_json(&json, bytes, class, settings)?
    } else if files::open(&vocabulary)?.is_some() {
        from_vocabulary(&vocabulary, class, settings)?
    } else {
        let missing = "tokenizer.json (or vocab.txt)".to_owned();
        return Err(ModelError::MissingFile {
            folder: folder.to_path_buf(),
            missing,
        });
    };
    let Source {
        file,
        mut tokenizer,
        before,
        after,
        side,
    } = source;
    if plan.lowercase {
        lowercase(&file, &mut tokenizer)?;
    }
    Ok(Inner {
        before,
        after,
        side: settings.side.or(side).unwrap_or(Side::Right),
        max_length: plan.max_length,
        tokens_per_byte: bounds::tokens_per_byte(&tokenizer),
        bytes_max: bounds::bytes_max(&file, &tokenizer)?,
        margin: bounds::margin(&tokenizer),
        largest: bounds::largest(&file, &tokenizer)?,
        prompts: plan.prompts,
        prompt_excluded: plan.prompt_excluded,
        file,
        tokenizer,
    })
}

/// A tokenizer and the special tokens around a text.
struct Source {
    file: std::path::PathBuf,
    tokenizer: Tokenizer,
    before: Vec<u32>,
    after: Vec<u32>,
    /// The side that is cut off, where the file names one.
    side: Option<Side>,
}

/// Placeholder id for the text; no vocabulary has it.
const TEXT: u32 = u32::MAX;

/// Reads `tokenizer.json`, and the special tokens that its post-processor puts around a text.
fn from_json(file: &Path, bytes: Vec<u8>, class: &Class, settings: &Settings) -> Result<Source, ModelError> {
    let reason = "not a tokenizer: it breaks off, or a part of it has no known form";
    let mut tokenizer = guard(file, reason, || Tokenizer::from_bytes(bytes))?;
    if let ModelWrapper::BPE(pairs) = tokenizer.get_model()
        && let Some(share) = pairs.dropout.filter(|share| *share > 0.0)
    {
        return Err(ModelError::unsupported(file, "model.dropout", share, "null"));
    }
    // The file may hold the padding and truncation of the program that saved it: all-MiniLM-L6-v2 pads every
    // text to 128 tokens. Only the side of its truncation counts, as in transformers.
    let side = tokenizer.get_truncation().map(|t| match t.direction {
        TruncationDirection::Left => Side::Left,
        TruncationDirection::Right => Side::Right,
    });
    tokenizer.with_padding(None);
    tokenizer
        .with_truncation(None)
        .map_err(|e| ModelError::malformed(file, e))?;
    class.apply(file, &mut tokenizer, settings)?;
    let stored: Vec<AddedToken> = tokenizer.get_added_tokens_decoder().into_values().collect();
    add_tokens(file, &mut tokenizer, class, settings)?;
    let (before, after) = around(file, &tokenizer)?;
    if class.kind != Kind::Whole {
        same_around(file, &tokenizer, class, settings, &before, &after)?;
        all_are_named(file, &stored, class, settings)?;
    }
    Ok(Source {
        file: file.to_path_buf(),
        tokenizer,
        before,
        after,
        side,
    })
}

/// Special tokens that the post-processor puts before and after a text.
fn around(file: &Path, tokenizer: &Tokenizer) -> Result<(Vec<u32>, Vec<u32>), ModelError> {
    let text = Encoding::from_tokens(vec![tokenizers::Token::new(TEXT, String::new(), (0, 0))], 0);
    let reason = "the post-processor names what is not there";
    let framed = guard(file, reason, || tokenizer.post_process(text, None, true))?;
    let ids = framed.get_ids();
    match ids.iter().filter(|&&id| id == TEXT).count() {
        1 => {
            let at = ids.iter().position(|&id| id == TEXT).unwrap_or_default();
            Ok((ids[..at].to_vec(), ids[at + 1..].to_vec()))
        }
        n => Err(ModelError::malformed(
            file,
            format!("the post-processor repeats the text {n} times, not once"),
        )),
    }
}

/// Refuses a post-processor that puts other tokens around a text than the class does.
fn same_around(
    file: &Path,
    tokenizer: &Tokenizer,
    class: &Class,
    settings: &Settings,
    before: &[u32],
    after: &[u32],
) -> Result<(), ModelError> {
    let [first, last] = class.around().map(|name| settings.text(name, class.token(name)));
    let is = |ids: &[u32], token: &str| matches!(ids, [id] if tokenizer.token_to_id(token) == Some(*id));
    if is(before, first) && is(after, last) {
        return Ok(());
    }
    let name = |ids: &[u32]| -> Vec<String> {
        let name = |id: &u32| tokenizer.id_to_token(*id).unwrap_or_else(|| id.to_string());
        ids.iter().map(name).collect()
    };
    let found = format!(
        "{} before a text and {} after it",
        name(before).join(" "),
        name(after).join(" ")
    );
    let supported = format!("{first} and {last}, which {} puts there", class.name());
    Err(ModelError::unsupported(file, "post_processor", found, &supported))
}

/// Refuses added tokens of `tokenizer.json` that `added_tokens_decoder` leaves out: newer releases drop them, older
/// ones keep them.
fn all_are_named(
    file: &Path,
    stored: &[AddedToken],
    class: &Class,
    settings: &Settings,
) -> Result<(), ModelError> {
    let is_named = |token: &&AddedToken| {
        let same = |other: &AddedToken| other.content == token.content;
        settings.added.values().any(same)
            || settings
                .named
                .values()
                .any(|other| other.content() == token.content)
            || settings.extra.iter().any(same)
            || NAMED.iter().any(|name| class.token(name) == token.content)
            || class.extra.contains(&token.content.as_str())
    };
    match stored
        .iter()
        .find(|token| settings.added_are_complete && !is_named(token))
    {
        Some(token) => Err(ModelError::malformed(
            file,
            format!(
                "added token \"{}\" is missing in added_tokens_decoder of tokenizer_config.json",
                token.content
            ),
        )),
        None => Ok(()),
    }
}

/// BERT's own tokenizer around a word list.
fn from_vocabulary(file: &Path, class: &Class, settings: &Settings) -> Result<Source, ModelError> {
    if class.kind != Kind::WordPiece {
        return Err(ModelError::MissingFile {
            folder: file.parent().unwrap_or(file).to_path_buf(),
            missing: format!(
                "tokenizer.json (vocab.txt is no tokenizer of class {})",
                class.name()
            ),
        });
    }
    let unk = settings.text("unk_token", class.token("unk_token"));
    let path = file
        .to_str()
        .ok_or_else(|| ModelError::malformed(file, "its path is not UTF-8"))?;
    let words = WordPiece::from_file(path).unk_token(unk.to_owned()).build();
    let words = words.map_err(|e| ModelError::malformed(file, e))?;
    let mut tokenizer = Tokenizer::new(ModelWrapper::WordPiece(words));
    let id = |tokenizer: &Tokenizer, token: &str| {
        tokenizer
            .token_to_id(token)
            .ok_or_else(|| ModelError::malformed(file, format!("token {token} is missing")))
    };
    let [first, last] = class.around().map(|name| settings.text(name, class.token(name)));
    let (before, after) = (vec![id(&tokenizer, first)?], vec![id(&tokenizer, last)?]);
    // Unknown words need this token.
    id(&tokenizer, unk)?;
    set(file, &mut tokenizer, bert_normalizer(settings))?;
    tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
    add_tokens(file, &mut tokenizer, class, settings)?;
    Ok(Source {
        file: file.to_path_buf(),
        tokenizer,
        before,
        after,
        side: None,
    })
}

/// Adds the tokens of the files in the order of transformers: those with an id, those with a name, the others.
fn add_tokens(
    file: &Path,
    tokenizer: &mut Tokenizer,
    class: &Class,
    settings: &Settings,
) -> Result<(), ModelError> {
    let is_named = |content: &str| settings.named.values().any(|token| token.content() == content);
    let mut tokens: Vec<AddedToken> = settings.added.values().cloned().collect();
    for token in &mut tokens {
        token.special |= is_named(&token.content);
    }
    let known = tokenizer.get_added_tokens_decoder();
    let mut names: Vec<String> = known.into_values().map(|token| token.content).collect();
    names.extend(tokens.iter().map(|token| token.content.clone()));
    for token in special_tokens(tokenizer, class, settings) {
        if !names.contains(&token.content) {
            names.push(token.content.clone());
            tokens.push(token);
        }
    }
    tokenizer
        .add_tokens(tokens)
        .map_err(|e| ModelError::malformed(file, e))?;
    for (&id, token) in &settings.added {
        if let Some(found) = tokenizer.token_to_id(&token.content).filter(|found| *found != id) {
            let reason = format!(
                "\"{}\" has id {id} among the added tokens and {found} here",
                token.content
            );
            return Err(ModelError::malformed(file, reason));
        }
    }
    tokenizer.set_encode_special_tokens(settings.switches.split_special_tokens.unwrap_or(false));
    Ok(())
}

/// Special tokens of files and class, those with a name first. Those of the class alone need a place in the
/// vocabulary.
fn special_tokens(tokenizer: &Tokenizer, class: &Class, settings: &Settings) -> Vec<AddedToken> {
    let mut tokens = Vec::new();
    for name in NAMED {
        let own = class.token(name);
        let is_known = !own.is_empty() && tokenizer.token_to_id(own).is_some();
        match settings.named.get(name) {
            Some(token) => tokens.push(token.named(name, class)),
            None if is_known && !settings.without.iter().any(|without| without == name) => {
                tokens.push(Token::Text(own.to_owned()).named(name, class));
            }
            None => {}
        }
    }
    let own = settings
        .named
        .iter()
        .filter(|(name, _)| !NAMED.contains(&name.as_str()));
    tokens.extend(own.map(|(name, token)| token.named(name, class)));
    tokens.extend(settings.extra.iter().cloned());
    if settings.extra.is_empty() {
        let listed = class
            .extra
            .iter()
            .filter(|text| tokenizer.token_to_id(text).is_some());
        tokens.extend(listed.map(|text| AddedToken::from(*text, true)));
    }
    tokens
}

/// Puts lower case before everything else, as sentence-transformers does where its own switch is on.
fn lowercase(file: &Path, tokenizer: &mut Tokenizer) -> Result<(), ModelError> {
    let parts = match tokenizer.get_normalizer() {
        None => Vec::new(),
        Some(NormalizerWrapper::Sequence(sequence)) => sequence.as_ref().to_vec(),
        Some(one) => vec![one.clone()],
    };
    if parts
        .iter()
        .any(|part| matches!(part, NormalizerWrapper::Lowercase(_)))
    {
        return Ok(());
    }
    let first = NormalizerWrapper::Lowercase(Lowercase);
    set(file, tokenizer, Sequence::new([vec![first], parts].concat()))
}
