//! What an executor runs: packed texts in, one reply for each text out.

use std::sync::Arc;

use penstock_core::{PackedTokens, Reply};
use penstock_kernels::{Ops, Pooling};

use crate::config::Config;
use crate::encoder::Encoder;
use crate::head::{Classifier, probabilities};
use crate::weights::Weights;
use crate::{ModelError, ModelSpec, Task};

/// A model on a device. It belongs to one thread at a time: its buffers are reused.
pub trait Model: Send {
    /// One reply for each text, in batch order. A text whose values are not finite comes back as it is
    /// ([`Reply::is_finite`]) and does not touch its neighbours.
    fn forward(&mut self, batch: &PackedTokens) -> Result<Vec<Reply>, ModelError>;

    /// The longest text in tokens that it can run.
    fn window(&self) -> usize;
}

/// An encoder with its head on the device `O`.
pub(crate) struct PackedModel<O: Ops> {
    spec: Arc<ModelSpec>,
    ops: O,
    encoder: Encoder<O>,
    head: Head<O>,
    window: usize,
    /// What came back from the device, reused.
    rows: Vec<f32>,
}

enum Head<O: Ops> {
    Embedding(Pooling),
    Classifier(Classifier<O>),
}

impl<O: Ops> PackedModel<O> {
    /// Packs the weights for `ops`.
    pub fn load(
        spec: Arc<ModelSpec>,
        config: &Config,
        weights: &Weights,
        ops: O,
    ) -> Result<Self, ModelError> {
        let head = match spec.task {
            Task::Embedding => Head::Embedding(spec.pooling.unwrap_or(Pooling::Mean)),
            Task::SequenceClassification => Head::Classifier(Classifier::load(config, weights, &ops)?),
        };
        let encoder = Encoder::load(config, weights, &ops)?;
        Ok(PackedModel {
            spec,
            ops,
            encoder,
            head,
            window: config.window(),
            rows: Vec::new(),
        })
    }

    /// The packed form is trusted by the kernels, so it is checked here, once for each batch.
    fn check(&self, batch: &PackedTokens) -> Result<(), ModelError> {
        let ends = &batch.cu_seqlens;
        if ends.first() != Some(&0) || ends.last().is_none_or(|&end| end as usize != batch.ids.len()) {
            return Err(ModelError::Batch(format!(
                "cu_seqlens does not run from 0 to {} tokens",
                batch.ids.len()
            )));
        }
        for (text, pair) in ends.windows(2).enumerate() {
            let length = pair[1].saturating_sub(pair[0]) as usize;
            if length == 0 || length > self.window {
                let window = self.window;
                return Err(ModelError::Batch(format!(
                    "text {text} has {length} tokens, must have 1 to {window}"
                )));
            }
        }
        match batch.ids.iter().find(|&&id| id as usize >= self.spec.vocabulary) {
            Some(id) => Err(ModelError::Batch(format!(
                "token id {id} lies outside of the vocabulary of {}",
                self.spec.vocabulary
            ))),
            None => Ok(()),
        }
    }

    fn reply(&self, row: &[f32]) -> Reply {
        match self.head {
            Head::Embedding(_) => Reply::Embedding(row.to_vec()),
            Head::Classifier(_) => Reply::Classes {
                logits: row.to_vec(),
                probabilities: probabilities(self.spec.problem, row),
            },
        }
    }
}

impl<O: Ops> Model for PackedModel<O> {
    fn forward(&mut self, batch: &PackedTokens) -> Result<Vec<Reply>, ModelError> {
        self.check(batch)?;
        if batch.sequences() == 0 {
            return Ok(Vec::new());
        }
        let PackedModel {
            ops,
            encoder,
            head,
            rows,
            ..
        } = self;
        ops.enter(|ops| match head {
            Head::Embedding(pooling) => {
                let pooled = encoder.pooled(ops, batch, *pooling)?;
                ops.send(pooled)
            }
            Head::Classifier(classifier) => {
                let first = encoder.pooled(ops, batch, Pooling::Cls)?;
                let logits = classifier.forward(ops, first)?;
                ops.send(logits)
            }
        })?;
        ops.receive(rows)?;
        let width = self.rows.len() / batch.sequences();
        Ok(self.rows.chunks_exact(width).map(|row| self.reply(row)).collect())
    }

    fn window(&self) -> usize {
        self.window
    }
}
