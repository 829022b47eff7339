//! `sentence_bert_config.json`: settings of the module that runs tokenizer and encoder.

use std::path::Path;

use serde_json::{Map, Value};

use crate::ModelError;
use crate::files::read_object;

/// The file's names; older releases named it after the model.
pub(crate) const FILES: [&str; 7] = [
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
];

/// Arguments of a tokenizer that read other files or choose another class.
const ELSEWHERE: [&str; 6] = [
    "tokenizer_type",
    "tokenizer_file",
    "vocab_file",
    "merges_file",
    "gguf_file",
    "config",
];

/// Arguments of a model that change no output here: the format and place of its weights.
const MODEL_ARGUMENTS: [&str; 8] = [
    "add_pooling_layer",
    "attn_implementation",
    "device_map",
    "dtype",
    "low_cpu_mem_usage",
    "torch_dtype",
    "trust_remote_code",
    "use_safetensors",
];

/// Settings of the encoder's module.
#[derive(Debug, Default)]
pub(crate) struct EncoderModule {
    /// Settings of the tokenizer that outrank `tokenizer_config.json`.
    pub tokenizer: Map<String, Value>,
    /// Length of the longest text in tokens, which outranks every other.
    pub tokens_max: Option<usize>,
    /// True where texts are converted to lower case.
    pub lowercase: bool,
}

impl EncoderModule {
    /// Reads the first of the files that `folder` has.
    pub fn read(folder: &Path) -> Result<EncoderModule, ModelError> {
        let mut module = EncoderModule::default();
        for name in FILES {
            let file = folder.join(name);
            let object = read_object(&file)?.unwrap_or_default();
            for (key, value) in &object {
                // Every key may be null, which stands for its default.
                if !value.is_null() {
                    module.set(&file, key, value)?;
                }
            }
            if !object.is_empty() {
                break;
            }
        }
        Ok(module)
    }

    fn set(&mut self, file: &Path, key: &str, value: &Value) -> Result<(), ModelError> {
        let refuse = |supported: &str| Err(ModelError::unsupported(file, key, value, supported));
        match key {
            "max_seq_length" => {
                if value.as_u64().is_none_or(|tokens| tokens == 0) {
                    return refuse("a number of tokens");
                }
                // An argument of the tokenizer itself outranks it.
                self.tokenizer
                    .entry("model_max_length")
                    .or_insert_with(|| value.clone());
            }
            "do_lower_case" => match value.as_bool() {
                Some(lowercase) => self.lowercase = lowercase,
                None => return refuse("true, false"),
            },
            "tokenizer_args" | "processor_kwargs" => {
                let arguments = object(file, key, value)?;
                if let Some(name) = arguments.keys().find(|name| ELSEWHERE.contains(&name.as_str())) {
                    return Err(ModelError::unsupported(
                        file,
                        key,
                        name,
                        "settings of a tokenizer",
                    ));
                }
                self.tokenizer.extend(arguments.clone());
            }
            "model_args" | "model_kwargs" => only(file, key, value, &MODEL_ARGUMENTS)?,
            "config_args" | "config_kwargs" => only(file, key, value, &["trust_remote_code", "use_cache"])?,
            "transformer_task" => {
                if !matches!(
                    value.as_str(),
                    Some("feature-extraction" | "sequence-classification")
                ) {
                    return refuse("feature-extraction, sequence-classification");
                }
            }
            "module_output_name" => {
                if !matches!(value.as_str(), Some("token_embeddings" | "scores")) {
                    return refuse("token_embeddings, scores");
                }
            }
            "modality_config" => modality(file, object(file, key, value)?)?,
            "processing_kwargs" => self.process(file, object(file, key, value)?)?,
            // Padding takes no part in a result, and the two lengths are those of other calls than `encode`.
            "unpad_inputs" | "query_length" | "document_length" => {}
            "query_expansion" | "tokenizer_name_or_path" => return refuse("null"),
            _ => return refuse("the keys of sentence-transformers 6"),
        }
        Ok(())
    }

    /// Arguments of each call of the tokenizer.
    fn process(&mut self, file: &Path, kinds: &Map<String, Value>) -> Result<(), ModelError> {
        for (kind, arguments) in kinds {
            // Other kinds than text, and the templates of chats, never apply.
            if !matches!(kind.as_str(), "text" | "common") {
                continue;
            }
            for (name, value) in object(file, "processing_kwargs", arguments)? {
                let key = format!("processing_kwargs.{kind}.{name}");
                let refuse = |supported: &str| Err(ModelError::unsupported(file, &key, value, supported));
                match name.as_str() {
                    "max_length" => match value.as_u64() {
                        Some(tokens) if tokens > 0 => self.tokens_max = Some(tokens as usize),
                        None if value.is_null() => {}
                        _ => return refuse("a number of tokens"),
                    },
                    "truncation" => {
                        let is_on =
                            value == true || matches!(value.as_str(), Some("longest_first" | "only_first"));
                        if !is_on {
                            return refuse("true, longest_first, only_first");
                        }
                    }
                    "padding" | "padding_side" | "pad_to_multiple_of" | "return_tensors" | "verbose" => {}
                    _ => return refuse("max_length, truncation, padding"),
                }
            }
        }
        Ok(())
    }
}

fn object<'a>(file: &Path, key: &str, value: &'a Value) -> Result<&'a Map<String, Value>, ModelError> {
    value
        .as_object()
        .ok_or_else(|| ModelError::malformed(file, format!("{key} is not an object")))
}

/// Refuses an argument that is not one of `known`.
fn only(file: &Path, key: &str, value: &Value, known: &[&str]) -> Result<(), ModelError> {
    match object(file, key, value)?
        .keys()
        .find(|name| !known.contains(&name.as_str()))
    {
        Some(name) => Err(ModelError::unsupported(file, key, name, &known.join(", "))),
        None => Ok(()),
    }
}

/// Refuses a call of the encoder for texts that is not the usual one.
fn modality(file: &Path, kinds: &Map<String, Value>) -> Result<(), ModelError> {
    if kinds.contains_key("message") {
        let supported = "text, without the template of a chat";
        return Err(ModelError::unsupported(
            file,
            "modality_config",
            "message",
            supported,
        ));
    }
    let Some(text) = kinds.get("text") else {
        return Ok(());
    };
    let usual = [
        ("method", &["forward"][..]),
        ("method_output_name", &["last_hidden_state", "logits"]),
    ];
    for (key, names) in usual {
        let name = text.get(key).and_then(Value::as_str).unwrap_or_default();
        if !names.contains(&name) {
            let key = format!("modality_config.text.{key}");
            return Err(ModelError::unsupported(file, &key, name, &names.join(", ")));
        }
    }
    Ok(())
}
