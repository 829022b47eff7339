//! Prompts: a text that a model wants in front of a text.

use std::sync::Arc;

use super::TextTokenizer;

/// A prompt that a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prompt<'a> {
    /// One of the model's own, by its name.
    Named(&'a str),
    /// This text; an empty one stands for none.
    Text(&'a str),
}

/// Reason why a prompt cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PromptError {
    /// The model has no prompt of this name.
    #[error("the model has no prompt named {name:?}; {known}")]
    Unknown {
        /// The name as asked for.
        name: String,
        /// The names that the model has, as a sentence.
        known: String,
    },
    /// The model leaves the tokens of its prompt out of the mean, which is not supported.
    #[error("a prompt cannot be used: {file} has include_prompt = false, which is not supported")]
    Excluded {
        /// The file that says so.
        file: String,
    },
}

impl TextTokenizer {
    /// The same tokenizer with `prompt` in front of every text, in place of the model's default prompt.
    pub fn with_prompt(&self, prompt: Prompt<'_>) -> Result<TextTokenizer, PromptError> {
        let named = &self.inner.prompts.named;
        let text = match prompt {
            Prompt::Text(text) => text,
            Prompt::Named(name) => named.get(name).ok_or_else(|| PromptError::Unknown {
                name: name.to_owned(),
                known: match named.len() {
                    0 => "it has none".to_owned(),
                    _ => format!("it has {}", named.keys().cloned().collect::<Vec<_>>().join(", ")),
                },
            })?,
        };
        match &self.inner.prompt_excluded {
            Some(file) if !text.is_empty() => Err(PromptError::Excluded {
                file: file.display().to_string(),
            }),
            _ => Ok(TextTokenizer {
                inner: Arc::clone(&self.inner),
                prompt: text.into(),
            }),
        }
    }

    /// The prompt in front of every text; empty where there is none.
    pub fn prompt(&self) -> &str {
        &self.prompt
    }
}
