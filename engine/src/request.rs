//! Requests of any protocol, without their wire types.

use std::sync::Arc;

use penstock_core::RequestContext;

use crate::served_model::{ServedModel, WhenFull};

/// One input of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A text.
    Text(String),
    /// Token ids of the model's own tokenizer, with their special tokens.
    TokenIds(Vec<u32>),
}

impl Input {
    /// Bytes that the input holds.
    pub fn bytes(&self) -> usize {
        match self {
            Input::Text(text) => text.len(),
            Input::TokenIds(ids) => size_of_val(ids.as_slice()),
        }
    }
}

/// One request: its inputs, and the model version that validates, scores and renders it.
pub struct InferenceRequest {
    /// The model version. A version that replaces it meanwhile has no influence.
    pub served: Arc<ServedModel>,
    /// At least one.
    pub inputs: Vec<Input>,
    /// Its context.
    pub context: RequestContext,
    /// Behaviour when the queue is full.
    pub room: WhenFull,
}
