//! `config_sentence_transformers.json`: texts that are put in front of a text, by name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::ModelError;
use crate::files::{keys, read_object};

/// Names that every model has. Where a folder gives them no text, they stand for none, as in sentence-transformers.
const ALWAYS: [&str; 2] = ["query", "document"];

#[derive(Default, Deserialize)]
#[serde(default)]
struct Raw {
    prompts: Option<BTreeMap<String, Option<String>>>,
    default_prompt_name: Option<String>,
}

/// The prompts of a model.
#[derive(Clone, Debug, Default)]
pub(crate) struct Prompts {
    /// The file, for messages.
    pub file: PathBuf,
    pub named: BTreeMap<String, String>,
    /// Name of the prompt of a text that asks for none.
    pub default: Option<String>,
}

impl Prompts {
    pub fn read(folder: &Path) -> Result<Prompts, ModelError> {
        let file = folder.join("config_sentence_transformers.json");
        let raw: Raw = match read_object(&file)? {
            Some(object) => keys(&file, &object)?,
            None => Raw::default(),
        };
        let given = raw.prompts.unwrap_or_default().into_iter();
        let mut named: BTreeMap<String, String> = given
            .map(|(name, text)| (name, text.unwrap_or_default()))
            .collect();
        for name in ALWAYS {
            named.entry(name.to_owned()).or_default();
        }
        if let Some(name) = raw
            .default_prompt_name
            .as_ref()
            .filter(|name| !named.contains_key(*name))
        {
            let names: Vec<&str> = named.keys().map(String::as_str).collect();
            return Err(ModelError::unsupported(
                &file,
                "default_prompt_name",
                name,
                &names.join(", "),
            ));
        }
        Ok(Prompts {
            file,
            named,
            default: raw.default_prompt_name,
        })
    }

    /// Text in front of a text that asks for no prompt.
    pub fn standard(&self) -> &str {
        self.default
            .as_ref()
            .and_then(|name| self.named.get(name))
            .map_or("", String::as_str)
    }
}
