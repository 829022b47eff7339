//! Answers: a reply or a rejection, delivered exactly once.

use std::sync::Arc;
use std::time::Duration;

use crate::time::Nanos;

/// One text's result.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// The pooled embedding, f32 `[dim]`, before any normalisation that the request asks for.
    Embedding(Vec<f32>),
    /// A sequence classification.
    Classes {
        /// f32 `[labels]`, as the head computes them.
        logits: Vec<f32>,
        /// f32 `[labels]`: softmax (one label), sigmoid (many labels) or the logits (regression).
        probabilities: Vec<f32>,
    },
    /// A token classification.
    Tokens {
        /// f32 `[tokens, labels]`, row-major, special tokens included.
        logits: Vec<f32>,
    },
}

impl Reply {
    /// False where any value is NaN or infinite: such a reply counts as a failure.
    pub fn is_finite(&self) -> bool {
        let finite = |values: &[f32]| values.iter().all(|v| v.is_finite());
        match self {
            Reply::Embedding(values) | Reply::Tokens { logits: values } => finite(values),
            Reply::Classes {
                logits,
                probabilities,
            } => finite(logits) && finite(probabilities),
        }
    }
}

/// Reason why a text got no reply. The enum is closed: `server/src/status.rs` maps every variant to a gRPC
/// code and an HTTP status, without a wildcard arm.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The request can never work; the message names the fault and the right form.
    #[error("{0}")]
    Invalid(String),
    /// There is no such model or version.
    #[error("{0}")]
    NotFound(String),
    /// The model exists but does not serve now: loading, failed or unloaded.
    #[error("{0}")]
    NotReady(String),
    /// A bound is reached.
    #[error("{what} is full: {used} of {bound} {unit} are taken")]
    Overloaded {
        /// Name of the resource that is full.
        what: &'static str,
        /// Amount in use.
        used: usize,
        /// The bound.
        bound: usize,
        /// The unit of both.
        unit: &'static str,
    },
    /// The deadline passed, or would pass before the result.
    #[error("deadline exceeded: {0}")]
    DeadlineExceeded(&'static str),
    /// The client is gone.
    #[error("cancelled: the client is gone")]
    Cancelled,
    /// The server is shutting down and takes no new work.
    #[error("the server is shutting down")]
    ShuttingDown,
    /// The model computed a NaN or an infinity.
    #[error("model {model} computed a value that is not finite")]
    NotFinite {
        /// The model's name.
        model: String,
    },
    /// The model failed; the message names the operation.
    #[error("{0}")]
    Model(String),
    /// The device has too little memory for this text alone.
    #[error("{0}")]
    NoMemory(String),
    /// The stage that held the request died before it could answer.
    #[error("the request was lost inside the server")]
    Lost,
}

/// Advice on sending the same request again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Do not: the same request will be refused again.
    Never,
    /// Try again after this time, or at another replica.
    After(Duration),
}

impl Rejection {
    /// Advice for the caller.
    pub fn retry(&self) -> Retry {
        match self {
            Rejection::Invalid(_)
            | Rejection::NotFound(_)
            | Rejection::DeadlineExceeded(_)
            | Rejection::Cancelled
            | Rejection::NotFinite { .. }
            | Rejection::Model(_) => Retry::Never,
            Rejection::Overloaded { .. } | Rejection::Lost | Rejection::ShuttingDown => {
                Retry::After(Duration::from_secs(1))
            }
            Rejection::NotReady(_) | Rejection::NoMemory(_) => Retry::After(Duration::from_secs(5)),
        }
    }
}

/// A reply, or the reason why there is none.
pub type Outcome = Result<Reply, Rejection>;

/// Time that a text spent in each stage, and its size. The three times and the time to respond add up to its total.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stages {
    /// From receipt to token ids, including the wait for a tokenizer.
    pub tokenize: Duration,
    /// From token ids to the start of its batch.
    pub queue: Duration,
    /// The forward pass of its batch.
    pub execute: Duration,
    /// End of the last stage, on the server's clock.
    pub finished: Nanos,
    /// Token ids of the text; 0 where it was never tokenized.
    pub tokens: usize,
}

/// Receiver of the rows of one submission. Executor threads call it, so it must not block.
pub trait Sink: Send + Sync {
    /// Takes the outcome of row `row`. Called exactly once for every row.
    fn answer(&self, row: u32, outcome: Outcome, stages: Stages);

    /// True once the caller is gone, so that no compute is spent.
    fn is_cancelled(&self) -> bool;
}

/// The duty to answer one row. Answering consumes the responder; a dropped one answers [`Rejection::Lost`].
pub struct Responder {
    sink: Option<Arc<dyn Sink>>,
    row: u32,
}

impl Responder {
    /// A responder for row `row` of `sink`.
    pub fn new(sink: Arc<dyn Sink>, row: u32) -> Responder {
        Responder {
            sink: Some(sink),
            row,
        }
    }

    /// Answers the row.
    pub fn answer(mut self, outcome: Outcome, stages: Stages) {
        if let Some(sink) = self.sink.take() {
            sink.answer(self.row, outcome, stages);
        }
    }

    /// True once the caller is gone.
    pub fn is_cancelled(&self) -> bool {
        self.sink.as_ref().is_some_and(|s| s.is_cancelled())
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if let Some(sink) = self.sink.take() {
            sink.answer(self.row, Err(Rejection::Lost), Stages::default());
        }
    }
}
