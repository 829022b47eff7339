//! Description of a model: family, task, labels, sizes. It is known before any weight is packed.

use std::collections::BTreeMap;

use penstock_kernels::Pooling;

use crate::{Family, Problem, Task};

/// Description of a model folder.
#[derive(Clone, Debug)]
pub struct ModelSpec {
    /// The encoder's family, from `model_type`.
    pub family: Family,
    /// The task.
    pub task: Task,
    /// The labels in the order of the logits; empty for an embedding model.
    pub labels: Vec<String>,
    /// Rule that turns logits into probabilities; it does not apply to an embedding model.
    pub problem: Problem,
    /// Width of a hidden state, and thus the dimension of an embedding.
    pub hidden: usize,
    /// Encoder layers.
    pub layers: usize,
    /// Attention heads a layer.
    pub heads: usize,
    /// Rows of the word embedding table.
    pub vocabulary: usize,
    /// Length of the longest text in tokens, special tokens included.
    pub max_length: usize,
    /// Pooling of token vectors to one; `None` for a classifier, whose head takes the first token.
    pub pooling: Option<Pooling>,
    /// True where no file names the pooling and [`ModelSpec::pooling`] is the default of sentence-transformers, the
    /// mean. That may be intended, or a cached snapshot lacks `modules.json` and `1_Pooling/config.json`.
    pub pooling_assumed: bool,
    /// True where `modules.json` ends in a Normalize module. [`crate::Model::forward`] does not apply it, because a
    /// request may ask for the raw vector: the caller applies [`crate::normalize`].
    pub normalize: bool,
    /// Texts that a request may ask to be put in front of its texts, by name; empty for a classifier.
    pub prompts: BTreeMap<String, String>,
    /// Name of the prompt in front of a text that asks for none.
    pub default_prompt: Option<String>,
    /// Number of weights of all tensors in the file.
    pub parameters: u64,
    /// Number of weights by stored type (`F32`, `F16`, `BF16`, …).
    pub dtypes: BTreeMap<String, u64>,
    /// Cases of `parity.json`, checked at load; 0 where there is none.
    pub parity_cases: usize,
}
