//! Settings of a tokenizer, merged from the files beside it as transformers merges them.
//!
//! `tokenizer_config.json` comes first. Where it has no `added_tokens_decoder`, `special_tokens_map.json` beats it,
//! and `added_tokens.json` and the added tokens of `tokenizer.json` take the place of that key. Arguments of
//! sentence-transformers beat them all.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};
use tokenizers::AddedToken;

use super::class::Class;
use crate::ModelError;
use crate::files::{keys, read_object};

/// Special tokens that have a name, in the order in which transformers adds them.
pub(super) const NAMED: [&str; 7] = [
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
];

/// Key of an object that is a token wherever it stands.
const KIND: &str = "__type";

/// Limits beyond this number mean "no limit", which transformers writes as 1e30.
const TOKENS_MAX: f64 = 1e9;

/// The keys that affect ids, besides tokens.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Switches {
    pub tokenizer_class: Option<String>,
    pub do_lower_case: Option<bool>,
    pub strip_accents: Option<bool>,
    pub tokenize_chinese_chars: Option<bool>,
    pub add_prefix_space: Option<bool>,
    pub split_special_tokens: Option<bool>,
    truncation_side: Option<String>,
    do_basic_tokenize: Option<bool>,
    never_split: Option<Vec<String>>,
    auto_map: Option<Value>,
    fast_tokenizer_files: Option<Vec<String>>,
}

/// The side of a long text that is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Left,
    Right,
}

/// Settings of a tokenizer.
pub(crate) struct Settings {
    /// `tokenizer_config.json`, for messages.
    pub(super) file: PathBuf,
    pub(super) switches: Switches,
    /// Special tokens by name: those of [`NAMED`] and a model's own.
    pub(super) named: BTreeMap<String, Token>,
    /// Names whose token is said to be none.
    pub(super) without: Vec<String>,
    /// More special tokens.
    pub(super) extra: Vec<AddedToken>,
    /// Added tokens by the id that a file gives them.
    pub(super) added: BTreeMap<u32, AddedToken>,
    /// True where the added tokens come from `added_tokens_decoder`, which then names all of them.
    pub(super) added_are_complete: bool,
    /// The side that is cut off, where one is named.
    pub(super) side: Option<Side>,
    /// Length of the longest text, where there is a limit.
    pub(crate) limit: Option<usize>,
}

/// A token: its text, or an object with its flags.
#[derive(Clone, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a token: a text, or an object with its content"
)]
pub(super) enum Token {
    Text(String),
    Object(Flags),
}

/// A token as a file describes it.
#[derive(Clone, Deserialize)]
pub(super) struct Flags {
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    normalized: Option<bool>,
    special: Option<bool>,
}

impl Token {
    pub fn content(&self) -> &str {
        match self {
            Token::Text(content) | Token::Object(Flags { content, .. }) => content,
        }
    }

    /// The token with its own flags. A text is a special one.
    fn read(&self) -> AddedToken {
        match self {
            Token::Text(content) => AddedToken::from(content.as_str(), true),
            Token::Object(flags) => flags.token(flags.special.unwrap_or(false)),
        }
    }

    /// The special token `name` of `class`: special whatever the file says, and a text with the flags of its class.
    pub fn named(&self, name: &str, class: &Class) -> AddedToken {
        match self {
            Token::Text(content) => {
                let strips = name == "mask_token" && class.mask_strips;
                AddedToken::from(content.as_str(), true).lstrip(strips)
            }
            Token::Object(flags) => flags.token(true),
        }
    }
}

impl Flags {
    /// The token. Where the file does not say so, a special one is matched before the text is normalised.
    fn token(&self, special: bool) -> AddedToken {
        AddedToken::from(self.content.as_str(), special)
            .single_word(self.single_word)
            .lstrip(self.lstrip)
            .rstrip(self.rstrip)
            .normalized(self.normalized.unwrap_or(!special))
    }
}

impl Settings {
    /// Reads and merges the files in `folder`; `arguments` outrank them.
    pub(crate) fn read(folder: &Path, arguments: &Map<String, Value>) -> Result<Settings, ModelError> {
        let file = folder.join("tokenizer_config.json");
        let mut values = read_object(&file)?.unwrap_or_default();
        values.extend(arguments.clone());
        let added_are_complete = values.contains_key("added_tokens_decoder");
        let added = if added_are_complete {
            decoder(&file, &values["added_tokens_decoder"])?
        } else {
            overlay_special_tokens(&folder.join("special_tokens_map.json"), &mut values, arguments)?;
            encoder(&folder.join("added_tokens.json"), &values)?
        };
        let switches: Switches = keys(&file, &values)?;
        refuse_unsupported(&file, &switches)?;
        let (named, without) = named(&file, &values)?;
        Ok(Settings {
            side: side(&file, switches.truncation_side.as_deref())?,
            limit: limit(&file, &values)?,
            extra: extra(&file, &values)?,
            switches,
            named,
            without,
            added,
            added_are_complete,
            file,
        })
    }

    /// The text of the special token `name`, or `otherwise` where no file names it.
    pub(super) fn text<'a>(&'a self, name: &str, otherwise: &'a str) -> &'a str {
        self.named.get(name).map_or(otherwise, Token::content)
    }
}

/// Refuses settings with which transformers would make other ids, or run code of the folder's own.
fn refuse_unsupported(file: &Path, switches: &Switches) -> Result<(), ModelError> {
    if let Some(map) = &switches.auto_map {
        let supported = "none: code of the folder's own is not run";
        return Err(ModelError::unsupported(file, "auto_map", map, supported));
    }
    if switches.do_basic_tokenize == Some(false) {
        return Err(ModelError::unsupported(file, "do_basic_tokenize", false, "true"));
    }
    if switches
        .never_split
        .as_ref()
        .is_some_and(|words| !words.is_empty())
    {
        return Err(ModelError::unsupported(
            file,
            "never_split",
            "a list of words",
            "null",
        ));
    }
    let other = |name: &&String| *name != "tokenizer.json";
    match switches.fast_tokenizer_files.iter().flatten().find(other) {
        Some(name) => Err(ModelError::unsupported(
            file,
            "fast_tokenizer_files",
            name,
            "tokenizer.json",
        )),
        None => Ok(()),
    }
}

/// Adds the keys of `special_tokens_map.json`, except those that `arguments` set.
fn overlay_special_tokens(
    file: &Path,
    values: &mut Map<String, Value>,
    arguments: &Map<String, Value>,
) -> Result<(), ModelError> {
    let lists = ["additional_special_tokens", "extra_special_tokens"];
    let has_list = lists.iter().any(|key| values.contains_key(*key));
    for (key, mut value) in read_object(file)?.unwrap_or_default() {
        // The first file's list of more tokens stays, under either name.
        let listed = key == "additional_special_tokens" && has_list;
        if listed || arguments.contains_key(&key) {
            continue;
        }
        match (values.get_mut(&key), &mut value) {
            (Some(Value::Array(list)), Value::Array(more)) if key == "extra_special_tokens" => {
                more.retain(|token| !list.contains(token));
                list.append(more);
                continue;
            }
            // These tokens are special whatever the file says.
            (_, Value::Object(flags)) if key != "extra_special_tokens" => {
                flags.insert("special".to_owned(), true.into());
                flags.insert(KIND.to_owned(), "AddedToken".into());
            }
            _ => {}
        }
        values.insert(key, value);
    }
    Ok(())
}

/// Tokens of `added_tokens_decoder`: flags by id.
fn decoder(file: &Path, value: &Value) -> Result<BTreeMap<u32, AddedToken>, ModelError> {
    let wrong = |reason: String| ModelError::malformed(file, format!("added_tokens_decoder: {reason}"));
    let tokens = value
        .as_object()
        .ok_or_else(|| wrong("it is not an object of tokens by id".to_owned()))?;
    let mut added = BTreeMap::new();
    for (id, token) in tokens {
        let number = id.parse().map_err(|_| wrong(format!("\"{id}\" is not an id")))?;
        let flags = Flags::deserialize(token).map_err(|e| wrong(format!("id {id}: {e}")))?;
        added.insert(number, flags.token(flags.special.unwrap_or(false)));
    }
    Ok(added)
}

/// Tokens of `added_tokens.json`: ids by text. A token that also has a name is special.
fn encoder(file: &Path, values: &Map<String, Value>) -> Result<BTreeMap<u32, AddedToken>, ModelError> {
    let mut added = BTreeMap::new();
    for (content, id) in read_object(file)?.unwrap_or_default() {
        let number = id.as_u64().and_then(|id| u32::try_from(id).ok());
        let number =
            number.ok_or_else(|| ModelError::malformed(file, format!("\"{content}\" has the id {id}")))?;
        let names_it = |value: &Value| match value {
            Value::String(text) => *text == content,
            Value::Object(flags) => flags.get("content").is_some_and(|text| *text == content),
            _ => false,
        };
        let listed = |key: &&str| {
            let list = values.get(*key).and_then(Value::as_array);
            list.is_some_and(|list| list.iter().any(names_it))
        };
        let special = NAMED.iter().any(|name| values.get(*name).is_some_and(names_it))
            || ["additional_special_tokens", "extra_special_tokens"]
                .iter()
                .any(listed);
        added.insert(number, AddedToken::from(content, special));
    }
    Ok(added)
}

/// Special tokens by name, and the names whose value is null. As in transformers, any key that ends in `_token` and
/// holds a text or a token names a special token.
fn named(
    file: &Path,
    values: &Map<String, Value>,
) -> Result<(BTreeMap<String, Token>, Vec<String>), ModelError> {
    let (mut named, mut without) = (BTreeMap::new(), Vec::new());
    for (key, value) in values {
        let is_known = NAMED.contains(&key.as_str());
        if value.is_null() && is_known {
            without.push(key.clone());
        } else if is_known || (key.ends_with("_token") && is_token(value)) {
            let token =
                Token::deserialize(value).map_err(|e| ModelError::malformed(file, format!("{key}: {e}")))?;
            named.insert(key.clone(), token);
        }
    }
    if let Some(Value::Object(own)) = values.get("extra_special_tokens") {
        for (key, value) in own {
            let token = Token::deserialize(value)
                .map_err(|e| ModelError::malformed(file, format!("extra_special_tokens.{key}: {e}")))?;
            named.insert(key.clone(), token);
        }
    }
    Ok((named, without))
}

fn is_token(value: &Value) -> bool {
    value.is_string() || value.get(KIND).is_some()
}

/// More special tokens, under the newer or the older key.
fn extra(file: &Path, values: &Map<String, Value>) -> Result<Vec<AddedToken>, ModelError> {
    let is_set = |value: &&Value| match value {
        Value::Array(list) => !list.is_empty(),
        Value::Object(named) => !named.is_empty(),
        other => !other.is_null(),
    };
    let newer = values.get("extra_special_tokens").filter(is_set);
    let (key, value) = match newer {
        Some(value) => ("extra_special_tokens", value),
        None => (
            "additional_special_tokens",
            values.get("additional_special_tokens").unwrap_or(&Value::Null),
        ),
    };
    // An object gives its tokens names; those are read with the named ones.
    if value.is_null() || (value.is_object() && key == "extra_special_tokens") {
        return Ok(Vec::new());
    }
    let tokens: Vec<Token> =
        Deserialize::deserialize(value).map_err(|e| ModelError::malformed(file, format!("{key}: {e}")))?;
    Ok(tokens.iter().map(Token::read).collect())
}

fn side(file: &Path, side: Option<&str>) -> Result<Option<Side>, ModelError> {
    match side {
        None => Ok(None),
        Some("left") => Ok(Some(Side::Left)),
        Some("right") => Ok(Some(Side::Right)),
        Some(other) => Err(ModelError::unsupported(
            file,
            "truncation_side",
            other,
            "left, right",
        )),
    }
}

/// `model_max_length`, or its older name, where it is a limit at all.
fn limit(file: &Path, values: &Map<String, Value>) -> Result<Option<usize>, ModelError> {
    let key = ["model_max_length", "max_len"]
        .into_iter()
        .find(|key| values.contains_key(*key));
    let Some((key, value)) = key
        .map(|key| (key, &values[key]))
        .filter(|(_, value)| !value.is_null())
    else {
        return Ok(None);
    };
    match value.as_f64() {
        Some(limit) if limit > TOKENS_MAX => Ok(None),
        // Some programs write a whole number with a decimal point.
        Some(limit) if limit >= 1.0 && limit.fract() == 0.0 => Ok(Some(limit as usize)),
        _ if value == "Infinity" => Ok(None),
        _ => Err(ModelError::unsupported(file, key, value, "a number of tokens")),
    }
}
