//! Token classification: each token's hidden state to the logits of its labels.

use std::sync::Arc;

use penstock_core::Reply;
use penstock_kernels::{Activation, KernelError, Ops};

use super::sequence_classification::check_labels;
use super::{Head, Rows};
use crate::ModelError;
use crate::config::Config;
use crate::encoder::linear;
use crate::weights::Weights;

/// Endings of `architectures` of a token classifier.
pub(super) const ARCHITECTURES: &[&str] = &["ForTokenClassification"];

/// The classifier's only layer; every family gives it the same name.
const CLASSIFIER: &str = "classifier";

/// The layer that computes the logits of each token.
pub(super) struct TokenClassifier<O: Ops> {
    /// Shared by all executors of a device.
    out: Arc<O::Matrix>,
    logits: O::Buffer,
}

impl<O: Ops> TokenClassifier<O> {
    /// Reads and packs the classifier.
    pub(super) fn load(
        config: &Config,
        weights: &Weights,
        ops: &O,
    ) -> Result<TokenClassifier<O>, ModelError> {
        let (hidden, labels) = (config.hidden, config.labels.len());
        let name = weights.outer(CLASSIFIER);
        check_labels(weights, &format!("{name}.weight"), labels)?;
        let (weight, bias) = linear(weights, &name, labels, hidden)?;
        Ok(TokenClassifier {
            out: Arc::new(ops.matrix(&weight, Some(&bias), labels, hidden)?),
            logits: ops.buffer(),
        })
    }
}

impl<O: Ops + 'static> Head<O> for TokenClassifier<O> {
    fn rows(&self) -> Rows {
        Rows::Tokens
    }

    fn forward<'a>(&'a mut self, ops: &mut O, hidden: &'a O::Buffer) -> Result<&'a O::Buffer, KernelError> {
        ops.linear(hidden, &self.out, Activation::None, &mut self.logits)?;
        Ok(&self.logits)
    }

    fn reply(&self, results: &[f32]) -> Reply {
        Reply::Tokens {
            logits: results.to_vec(),
        }
    }

    fn replica(&self, ops: &O) -> Box<dyn Head<O>> {
        Box::new(TokenClassifier {
            out: Arc::clone(&self.out),
            logits: ops.buffer(),
        })
    }
}
