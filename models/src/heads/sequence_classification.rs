//! Sequence classification: first token to logits, logits to probabilities.

use std::sync::Arc;

use penstock_core::{Rejection, Reply};
use penstock_kernels::{Activation, KernelError, Ops, Pooling};

use super::Head;
use super::output::{Description, Form, Output, Value, other_task};
use crate::config::Config;
use crate::encoder::linear;
use crate::families::Dense;
use crate::weights::Weights;
use crate::{ModelError, ModelSpec};

/// The task of a sequence classifier.
pub(super) static DESCRIPTION: Description = Description {
    name: "sequence-classification",
    architectures: &["ForSequenceClassification"],
    outputs: &[
        Output {
            name: "label",
            form: Form::Text,
            is_default: true,
            read: |spec, reply| Ok(Value::Text(classified(spec, reply)?.label)),
        },
        Output {
            name: "score",
            form: Form::Number,
            is_default: true,
            read: |spec, reply| Ok(Value::Number(classified(spec, reply)?.score)),
        },
        Output {
            name: "probabilities",
            form: Form::PerLabel,
            is_default: true,
            read: |spec, reply| Ok(Value::PerLabel(classified(spec, reply)?.probabilities)),
        },
        Output {
            name: "logits",
            form: Form::PerLabel,
            is_default: false,
            read: |spec, reply| Ok(Value::PerLabel(classified(spec, reply)?.logits)),
        },
    ],
};

/// A classification of one text, borrowed from its reply.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Classified<'a> {
    /// The label with the highest probability; the first one of equals.
    pub label: &'a str,
    /// Its probability.
    pub score: f32,
    /// One per label.
    pub probabilities: &'a [f32],
    /// One per label.
    pub logits: &'a [f32],
}

/// The reply of a classifier.
pub fn classified<'a>(spec: &'a ModelSpec, reply: &'a Reply) -> Result<Classified<'a>, Rejection> {
    let Reply::Classes {
        logits,
        probabilities,
    } = reply
    else {
        return Err(other_task(spec));
    };
    let mut best = 0;
    for (i, p) in probabilities.iter().enumerate() {
        if p.total_cmp(&probabilities[best]).is_gt() {
            best = i;
        }
    }
    match (spec.labels.get(best), probabilities.get(best)) {
        (Some(label), Some(&score)) => Ok(Classified {
            label,
            score,
            probabilities,
            logits,
        }),
        _ => Err(Rejection::Model(format!(
            "the model computed {} probabilities for {} labels",
            probabilities.len(),
            spec.labels.len()
        ))),
    }
}

/// Rule that turns the logits of a classifier into probabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// Exactly one label is right: softmax.
    SingleLabel,
    /// Each label is right or not on its own: sigmoid. Also a single unnamed score, as transformers does.
    MultiLabel,
    /// The logits are the answer.
    Regression,
}

impl Problem {
    /// The name in configuration and metadata, as transformers' `problem_type` spells it.
    pub fn name(self) -> &'static str {
        match self {
            Problem::SingleLabel => "single_label_classification",
            Problem::MultiLabel => "multi_label_classification",
            Problem::Regression => "regression",
        }
    }
}

/// A hidden layer and the layer that computes the logits.
pub(super) struct Classifier<O: Ops> {
    /// Shared by all executors of a device.
    layers: Arc<Layers<O>>,
    problem: Problem,
    middle: O::Buffer,
    logits: O::Buffer,
}

struct Layers<O: Ops> {
    dense: O::Matrix,
    activation: Activation,
    out: O::Matrix,
}

impl<O: Ops> Classifier<O> {
    /// Reads and packs the classifier of `config`'s family.
    pub(super) fn load(config: &Config, weights: &Weights, ops: &O) -> Result<Classifier<O>, ModelError> {
        let names = config.family.names();
        let (hidden, labels) = (config.hidden, config.labels.len());
        check_labels(
            weights,
            &weights.outer(&format!("{}.weight", names.classifier)),
            labels,
        )?;
        let (dense, activation) = match names.dense {
            Dense::Pooler(name) => (weights.encoder(name), Activation::Tanh),
            Dense::Tanh(name) => (weights.outer(name), Activation::Tanh),
            Dense::Relu(name) => (weights.outer(name), Activation::Relu),
        };
        let (weight, bias) = linear(weights, &dense, hidden, hidden)?;
        let (out_weight, out_bias) = linear(weights, &weights.outer(names.classifier), labels, hidden)?;
        let layers = Layers {
            dense: ops.matrix(&weight, Some(&bias), hidden, hidden)?,
            activation,
            out: ops.matrix(&out_weight, Some(&out_bias), labels, hidden)?,
        };
        Ok(Classifier::with(Arc::new(layers), config.problem, ops))
    }

    fn with(layers: Arc<Layers<O>>, problem: Problem, ops: &O) -> Classifier<O> {
        Classifier {
            layers,
            problem,
            middle: ops.buffer(),
            logits: ops.buffer(),
        }
    }
}

impl<O: Ops + 'static> Head<O> for Classifier<O> {
    fn pooling(&self) -> Pooling {
        Pooling::Cls
    }

    fn forward<'a>(&'a mut self, ops: &mut O, pooled: &'a O::Buffer) -> Result<&'a O::Buffer, KernelError> {
        let Layers {
            dense,
            activation,
            out,
        } = &*self.layers;
        ops.linear(pooled, dense, *activation, &mut self.middle)?;
        ops.linear(&self.middle, out, Activation::None, &mut self.logits)?;
        Ok(&self.logits)
    }

    fn reply(&self, row: &[f32]) -> Reply {
        Reply::Classes {
            logits: row.to_vec(),
            probabilities: probabilities(self.problem, row),
        }
    }

    fn replica(&self, ops: &O) -> Box<dyn Head<O>> {
        Box::new(Classifier::with(Arc::clone(&self.layers), self.problem, ops))
    }
}

/// Refuses a classifier whose rows are not as many as the labels, with a message that names both.
fn check_labels(weights: &Weights, tensor: &str, labels: usize) -> Result<(), ModelError> {
    match weights.shape(tensor).as_deref() {
        Some(&[rows, _]) if rows != labels => Err(ModelError::LabelCount {
            file: weights.file().to_path_buf(),
            tensor: tensor.to_owned(),
            labels,
            rows,
        }),
        // A missing tensor or a wrong width is reported when it is read.
        _ => Ok(()),
    }
}

/// Probabilities of the labels, from their logits.
fn probabilities(problem: Problem, logits: &[f32]) -> Vec<f32> {
    match problem {
        Problem::Regression => logits.to_vec(),
        Problem::MultiLabel => logits.iter().map(|&x| 1.0 / (1.0 + (-x).exp())).collect(),
        Problem::SingleLabel => {
            let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let mut shares: Vec<f32> = logits.iter().map(|&x| (x - most).exp()).collect();
            let sum: f32 = shares.iter().sum();
            for share in &mut shares {
                *share /= sum;
            }
            shares
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Task;
    use crate::testing::spec;

    fn check(problem: Problem, logits: &[f32], expected: &[f32]) {
        let found = probabilities(problem, logits);
        assert_eq!(found.len(), expected.len());
        for (f, e) in found.iter().zip(expected) {
            assert!(
                (f - e).abs() < 1e-6,
                "{problem:?} of {logits:?}: {found:?} is not {expected:?}"
            );
        }
    }

    #[test]
    fn one_label_of_many_is_a_softmax_that_survives_large_logits() {
        check(Problem::SingleLabel, &[0.0, 0.0], &[0.5, 0.5]);
        check(Problem::SingleLabel, &[1.0, 3.0], &[0.119_202_92, 0.880_797_1]);
        check(Problem::SingleLabel, &[1000.0, 0.0, -1000.0], &[1.0, 0.0, 0.0]);
    }

    #[test]
    fn independent_labels_are_sigmoids_and_a_regression_is_unchanged() {
        check(Problem::MultiLabel, &[0.0, 2.0, -200.0], &[0.5, 0.880_797_1, 0.0]);
        check(Problem::Regression, &[-3.5], &[-3.5]);
    }

    #[test]
    fn a_logit_that_is_nan_stays_visible() {
        let shares = probabilities(Problem::SingleLabel, &[f32::NAN, 1.0]);
        assert!(shares.iter().any(|p| !p.is_finite()));
    }

    #[test]
    fn the_first_of_equal_labels_wins() {
        let spec = spec(Task::SequenceClassification, &["no", "yes", "maybe"]);
        let reply = Reply::Classes {
            logits: vec![0.0, 1.0, 1.0],
            probabilities: vec![0.2, 0.4, 0.4],
        };
        let row = classified(&spec, &reply).unwrap();
        assert_eq!((row.label, row.score), ("yes", 0.4));
        assert!(crate::embedded(&spec, &reply).is_err());
    }

    #[test]
    fn a_reply_with_more_rows_than_labels_is_the_models_fault() {
        let spec = spec(Task::SequenceClassification, &["only"]);
        let reply = Reply::Classes {
            logits: vec![0.0, 1.0],
            probabilities: vec![0.2, 0.8],
        };
        assert!(matches!(classified(&spec, &reply), Err(Rejection::Model(_))));
    }
}
