//! `config.json` of a Hugging Face model, checked: sizes and settings of the encoder and its head.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use penstock_kernels::Activation;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::files::{keys, read_object};
use crate::{Family, ModelError, Problem, Task};

/// Bound of every dimension. No real encoder exceeds it: a file that does is broken, and products of its
/// sizes would overflow.
const DIMENSION_MAX: usize = 1 << 24;

/// Bound of the labels of a classifier.
const LABELS_MAX: usize = 1 << 17;

/// Default of `layer_norm_eps`, which is added to a variance.
const EPS: f32 = 1e-12;

/// The file as it stands. `DistilBERT` has other keys for the same settings.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Raw {
    model_type: Option<String>,
    architectures: Option<Vec<String>>,
    #[serde(alias = "dim")]
    hidden_size: Option<usize>,
    #[serde(alias = "n_layers")]
    num_hidden_layers: Option<usize>,
    #[serde(alias = "n_heads")]
    num_attention_heads: Option<usize>,
    #[serde(alias = "hidden_dim")]
    intermediate_size: Option<usize>,
    #[serde(alias = "activation")]
    hidden_act: Option<String>,
    vocab_size: Option<usize>,
    max_position_embeddings: Option<usize>,
    type_vocab_size: Option<usize>,
    layer_norm_eps: Option<f32>,
    pad_token_id: Option<u32>,
    position_embedding_type: Option<String>,
    relative_attention_num_buckets: Option<usize>,
    is_decoder: Option<bool>,
    id2label: Option<BTreeMap<String, Label>>,
    num_labels: Option<usize>,
    problem_type: Option<String>,
    tokenizer_class: Option<String>,
    auto_map: Option<Map<String, Value>>,
    pruned_heads: Option<Map<String, Value>>,
    quantization_config: Option<Value>,
}

/// A label: its text, or a number, which is its text.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "expected a string or an integer")]
enum Label {
    Text(String),
    Number(i64),
}

/// The settings of `config.json`, all of them checked.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// The file itself, for messages.
    pub file: PathBuf,
    pub family: Family,
    pub hidden: usize,
    pub layers: usize,
    pub heads: usize,
    pub intermediate: usize,
    pub activation: Activation,
    pub vocabulary: usize,
    /// Rows of the position table.
    pub positions: usize,
    /// Rows of the token type table; 0 where the family has none.
    pub kinds: usize,
    pub eps: f32,
    /// The padding id, where the positions depend on it.
    pub padding: Option<u32>,
    /// Rows of the relative attention bias.
    pub buckets: usize,
    /// The task that `architectures` names; `None` where it names none that is supported.
    pub task: Option<Task>,
    /// `architectures`, for messages.
    pub architecture: String,
    pub labels: Vec<String>,
    pub problem: Problem,
    /// The tokenizer's class, where `tokenizer_config.json` names none.
    pub tokenizer_class: Option<String>,
}

impl Config {
    /// Reads and checks `config.json` in `folder`.
    pub fn read(folder: &Path) -> Result<Config, ModelError> {
        let file = folder.join("config.json");
        let object = read_object(&file)?.ok_or_else(|| ModelError::MissingFile {
            folder: folder.to_path_buf(),
            missing: "config.json".to_owned(),
        })?;
        let raw = keys(&file, &object)?;
        check(file, raw)
    }

    /// Length of the longest text that the position table holds, special tokens included.
    pub fn window(&self) -> usize {
        self.positions - self.padding.map_or(0, |p| p as usize + 1)
    }
}

fn check(file: PathBuf, raw: Raw) -> Result<Config, ModelError> {
    let model_type = raw
        .model_type
        .as_deref()
        .ok_or_else(|| ModelError::malformed(&file, "model_type is missing"))?;
    let family = Family::parse(&file, model_type)?;
    refuse_unsupported(&file, &raw)?;

    let size = |key: &str, value: Option<usize>| size(&file, key, value);
    let hidden = size("hidden_size", raw.hidden_size)?;
    let heads = size("num_attention_heads", raw.num_attention_heads)?;
    if !hidden.is_multiple_of(heads) {
        let divides = format!("a divisor of hidden_size {hidden}");
        return Err(ModelError::unsupported(
            &file,
            "num_attention_heads",
            heads,
            &divides,
        ));
    }
    let positions = size("max_position_embeddings", raw.max_position_embeddings)?;
    let padding = family
        .positions_after_padding()
        .then(|| raw.pad_token_id.unwrap_or(1));
    if let Some(padding) = padding.filter(|p| *p as usize + 1 >= positions) {
        let room = format!("more than pad_token_id {padding} plus one");
        return Err(ModelError::unsupported(
            &file,
            "max_position_embeddings",
            positions,
            &room,
        ));
    }
    let kinds = if family.names().kinds {
        size("type_vocab_size", raw.type_vocab_size.or(Some(2)))?
    } else {
        0
    };
    let labels = labels(&file, raw.id2label, raw.num_labels)?;
    let architecture = raw.architectures.unwrap_or_default().join(", ");
    Ok(Config {
        family,
        hidden,
        layers: size("num_hidden_layers", raw.num_hidden_layers)?,
        heads,
        intermediate: size("intermediate_size", raw.intermediate_size)?,
        activation: activation(&file, raw.hidden_act.as_deref().unwrap_or("gelu"))?,
        vocabulary: size("vocab_size", raw.vocab_size)?,
        positions,
        kinds,
        eps: raw.layer_norm_eps.unwrap_or(EPS),
        padding,
        buckets: buckets(&file, raw.relative_attention_num_buckets)?,
        task: Task::of_architecture(&architecture),
        architecture,
        problem: problem(&file, raw.problem_type.as_deref(), labels.len())?,
        labels,
        tokenizer_class: raw.tokenizer_class,
        file,
    })
}

fn size(file: &Path, key: &str, value: Option<usize>) -> Result<usize, ModelError> {
    match value {
        Some(v) if (1..=DIMENSION_MAX).contains(&v) => Ok(v),
        Some(v) => Err(ModelError::unsupported(
            file,
            key,
            v,
            &format!("1 to {DIMENSION_MAX}"),
        )),
        None => Err(ModelError::malformed(file, format!("{key} is missing"))),
    }
}

/// `MPNet`'s buckets: both directions have a half, and each half two parts.
fn buckets(file: &Path, buckets: Option<usize>) -> Result<usize, ModelError> {
    match buckets.unwrap_or(32) {
        count if (4..=256).contains(&count) && count.is_multiple_of(4) => Ok(count),
        count => {
            let supported = "a multiple of 4 from 4 to 256";
            Err(ModelError::unsupported(
                file,
                "relative_attention_num_buckets",
                count,
                supported,
            ))
        }
    }
}

/// Refuses settings with which the original would compute something else than this encoder.
fn refuse_unsupported(file: &Path, raw: &Raw) -> Result<(), ModelError> {
    let positions = raw.position_embedding_type.as_deref().unwrap_or("absolute");
    if positions != "absolute" {
        return Err(ModelError::unsupported(
            file,
            "position_embedding_type",
            positions,
            "absolute",
        ));
    }
    if raw.is_decoder == Some(true) {
        return Err(ModelError::unsupported(
            file,
            "is_decoder",
            true,
            "false (an encoder)",
        ));
    }
    let own = |class: &&String| class.starts_with("AutoModel");
    if let Some(class) = raw.auto_map.iter().flat_map(Map::keys).find(own) {
        let supported = "none: code of the folder's own is not run";
        return Err(ModelError::unsupported(file, "auto_map", class, supported));
    }
    if raw.pruned_heads.as_ref().is_some_and(|heads| !heads.is_empty()) {
        return Err(ModelError::unsupported(file, "pruned_heads", "set", "no head"));
    }
    if raw.quantization_config.is_some() {
        let supported = "none: weights in f32, f16 or bf16";
        return Err(ModelError::unsupported(
            file,
            "quantization_config",
            "set",
            supported,
        ));
    }
    let eps = raw.layer_norm_eps.unwrap_or(EPS);
    if !(eps.is_finite() && eps >= 0.0) {
        return Err(ModelError::unsupported(
            file,
            "layer_norm_eps",
            eps,
            "a finite number of at least 0",
        ));
    }
    Ok(())
}

fn activation(file: &Path, name: &str) -> Result<Activation, ModelError> {
    match name {
        "gelu" => Ok(Activation::Gelu),
        "gelu_new" | "gelu_pytorch_tanh" => Ok(Activation::GeluTanh),
        "relu" => Ok(Activation::Relu),
        other => Err(ModelError::unsupported(
            file,
            "hidden_act",
            other,
            "gelu, gelu_new, gelu_pytorch_tanh, relu",
        )),
    }
}

/// The labels in the order of the logits. As in transformers, a file without labels has two, `id2label` beats
/// `num_labels`, and a key is read as a number (`"00"` is 0).
fn labels(
    file: &Path,
    id2label: Option<BTreeMap<String, Label>>,
    num_labels: Option<usize>,
) -> Result<Vec<String>, ModelError> {
    let bounded = |key: &str, count: usize| {
        let supported = format!("1 to {LABELS_MAX} labels");
        let refused = || ModelError::unsupported(file, key, count, &supported);
        (1..=LABELS_MAX)
            .contains(&count)
            .then_some(count)
            .ok_or_else(refused)
    };
    let Some(map) = id2label else {
        let count = bounded("num_labels", num_labels.unwrap_or(2))?;
        return Ok((0..count).map(|i| format!("LABEL_{i}")).collect());
    };
    let count = bounded("id2label", map.len())?;
    let mut labels = vec![None; count];
    for (key, label) in &map {
        let number = key.trim().parse::<usize>().ok();
        let place = number.and_then(|number| labels.get_mut(number));
        let text = match label {
            Label::Text(text) => text.clone(),
            Label::Number(number) => number.to_string(),
        };
        if place.is_none_or(|place| place.replace(text).is_some()) {
            let expected = format!("each number from 0 to {} once", count - 1);
            return Err(ModelError::malformed(
                file,
                format!("id2label has the key \"{key}\"; its {count} keys must be {expected}"),
            ));
        }
    }
    Ok(labels.into_iter().flatten().collect())
}

/// The problem as transformers' text classification pipeline reads it: one unnamed score is a sigmoid.
fn problem(file: &Path, problem_type: Option<&str>, labels: usize) -> Result<Problem, ModelError> {
    match problem_type {
        Some("regression") => Ok(Problem::Regression),
        Some("multi_label_classification") => Ok(Problem::MultiLabel),
        Some("single_label_classification") | None if labels == 1 => Ok(Problem::MultiLabel),
        Some("single_label_classification") | None => Ok(Problem::SingleLabel),
        Some(other) => {
            let supported = "regression, multi_label_classification, single_label_classification";
            Err(ModelError::unsupported(file, "problem_type", other, supported))
        }
    }
}

#[cfg(test)]
mod tests;
