//! Outputs of a task: the one description from which every protocol renders.

use penstock_core::{Rejection, Reply};

use crate::ModelSpec;

/// Form of an output for one input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A text.
    Text,
    /// A number.
    Number,
    /// A number for each label of the model.
    PerLabel,
    /// A vector, which a request may shorten or normalise.
    Vector,
}

/// An output of one input, borrowed from its reply.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// Value of [`Form::Text`].
    Text(&'a str),
    /// Value of [`Form::Number`].
    Number(f32),
    /// Value of [`Form::PerLabel`], in the order of the labels.
    PerLabel(&'a [f32]),
    /// Value of [`Form::Vector`], as the model computed it.
    Vector(&'a [f32]),
}

/// Reads an output from the reply of a model.
type Read = for<'a> fn(&'a ModelSpec, &'a Reply) -> Result<Value<'a>, Rejection>;

/// An output of a task.
#[derive(Debug)]
pub struct Output {
    /// Its name in every protocol.
    pub name: &'static str,
    /// Its form.
    pub form: Form,
    /// Whether a request that names no outputs gets it.
    pub is_default: bool,
    /// Reads it.
    pub read: Read,
}

/// Description of a task, held by the file of its head.
#[derive(Debug)]
pub(crate) struct Description {
    /// Name in configuration, metadata and `parity.json`.
    pub(crate) name: &'static str,
    /// Endings of `architectures` in `config.json` that name the task.
    pub(crate) architectures: &'static [&'static str],
    /// Outputs in the order of an answer.
    pub(crate) outputs: &'static [Output],
}

/// Rejection of a reply that another task gives.
pub(super) fn other_task(spec: &ModelSpec) -> Rejection {
    Rejection::Model(format!(
        "the model's task is {}, its reply is of another",
        spec.task.name()
    ))
}
