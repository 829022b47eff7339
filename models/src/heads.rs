//! Heads: from hidden states to replies. A head is a file in this folder, a [`Task`] and a row of [`load`].

mod embedding;
mod sequence_classification;
mod token_classification;

use penstock_core::Reply;
use penstock_kernels::{KernelError, Ops, Pooling};

use self::embedding::Embedding;
use self::sequence_classification::Classifier;
use self::token_classification::TokenClassifier;
use crate::config::Config;
use crate::weights::Weights;
use crate::{ModelError, ModelSpec};

pub use embedding::normalize;
pub use sequence_classification::Problem;

/// The kind of result that a model gives for a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// One label, or one score a label, for the whole text.
    SequenceClassification,
    /// One vector for the whole text.
    Embedding,
    /// One label for each token, which become entities: spans of the text.
    TokenClassification,
}

/// Hidden states that a head takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rows {
    /// One row for each text.
    Pooled(Pooling),
    /// One row for each token, special tokens included.
    Tokens,
}

impl Task {
    /// Every task.
    pub const ALL: [Task; 3] = [
        Task::SequenceClassification,
        Task::Embedding,
        Task::TokenClassification,
    ];

    /// The name in configuration, metadata and `parity.json`.
    pub fn name(self) -> &'static str {
        match self {
            Task::SequenceClassification => "sequence-classification",
            Task::Embedding => "embedding",
            Task::TokenClassification => "token-classification",
        }
    }

    /// Endings of `architectures` in `config.json` that name this task.
    fn architectures(self) -> &'static [&'static str] {
        match self {
            Task::SequenceClassification => sequence_classification::ARCHITECTURES,
            Task::Embedding => embedding::ARCHITECTURES,
            Task::TokenClassification => token_classification::ARCHITECTURES,
        }
    }

    /// The task that `architecture` names. A folder without `architectures` holds a bare encoder.
    pub(crate) fn of_architecture(architecture: &str) -> Option<Task> {
        if architecture.is_empty() {
            return Some(Task::Embedding);
        }
        let named = |task: &Task| task.architectures().iter().any(|end| architecture.ends_with(end));
        Task::ALL.into_iter().find(named)
    }

    /// All supported architectures, for messages.
    pub(crate) fn all_architectures() -> String {
        let ends = Task::ALL.into_iter().flat_map(Task::architectures);
        ends.map(|end| format!("…{end}")).collect::<Vec<_>>().join(", ")
    }
}

/// The part of a model after its encoder, on the device `O`.
pub(crate) trait Head<O: Ops>: Send {
    /// The hidden states that the head takes.
    fn rows(&self) -> Rows;

    /// One row of results for each row of `hidden`.
    fn forward<'a>(&'a mut self, ops: &mut O, hidden: &'a O::Buffer) -> Result<&'a O::Buffer, KernelError>;

    /// The reply of a text from its results: one row, or one for each of its tokens.
    fn reply(&self, results: &[f32]) -> Reply;

    /// A head that shares the weights and has buffers of its own.
    fn replica(&self, ops: &O) -> Box<dyn Head<O>>;
}

/// Reads and packs the head for the task of `spec`.
pub(crate) fn load<O: Ops + 'static>(
    spec: &ModelSpec,
    config: &Config,
    weights: &Weights,
    ops: &O,
) -> Result<Box<dyn Head<O>>, ModelError> {
    Ok(match spec.task {
        Task::SequenceClassification => Box::new(Classifier::load(config, weights, ops)?),
        Task::Embedding => Box::new(Embedding::new(spec)),
        Task::TokenClassification => Box::new(TokenClassifier::load(config, weights, ops)?),
    })
}
