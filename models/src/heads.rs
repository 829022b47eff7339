//! Heads: from hidden states to replies. A head is a file in this folder, which also describes the outputs of its
//! task, and rows of [`Task`] and [`load`].

mod embedding;
mod output;
mod sequence_classification;

use penstock_core::Reply;
use penstock_kernels::{KernelError, Ops, Pooling};

use self::embedding::Embedding;
use self::output::Description;
use self::sequence_classification::Classifier;
use crate::config::Config;
use crate::weights::Weights;
use crate::{ModelError, ModelSpec};

pub use embedding::{embedded, normalize};
pub use output::{Form, Output, Value};
pub use sequence_classification::{Classified, Problem, classified};

/// The kind of result that a model gives for a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// One label, or one score a label, for the whole text.
    SequenceClassification,
    /// One vector for the whole text.
    Embedding,
}

impl Task {
    /// Every task.
    pub const ALL: [Task; 2] = [Task::SequenceClassification, Task::Embedding];

    /// The name in configuration, metadata and `parity.json`.
    pub fn name(self) -> &'static str {
        self.description().name
    }

    /// The outputs, in the order of an answer.
    pub fn outputs(self) -> &'static [Output] {
        self.description().outputs
    }

    /// Whether an output has this form.
    pub fn has(self, form: Form) -> bool {
        self.outputs().iter().any(|output| output.form == form)
    }

    fn description(self) -> &'static Description {
        match self {
            Task::SequenceClassification => &sequence_classification::DESCRIPTION,
            Task::Embedding => &embedding::DESCRIPTION,
        }
    }

    fn architectures(self) -> &'static [&'static str] {
        self.description().architectures
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
    /// Pooling of the hidden states that the head takes.
    fn pooling(&self) -> Pooling;

    /// One row of results for each row of `pooled`.
    fn forward<'a>(&'a mut self, ops: &mut O, pooled: &'a O::Buffer) -> Result<&'a O::Buffer, KernelError>;

    /// The reply of one row of results.
    fn reply(&self, row: &[f32]) -> Reply;

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
    })
}
