//! Requests: token ids with their context, permit and responder.

use super::admission::Permit;
use super::context::RequestContext;
use super::reply::{Outcome, Rejection, Responder, Stages};
use crate::time::Nanos;

/// Priority of a text: a person waits for the answer (gRPC, HTTP), or a stream does (Kafka, files).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// Overtakes bulk work.
    Interactive,
    /// Fills the room that interactive work leaves; its age keeps it from starving.
    Bulk,
}

impl Class {
    /// Both classes, in the order in which they are served.
    pub const ALL: [Class; 2] = [Class::Interactive, Class::Bulk];

    /// The name used in requests, metrics and configuration.
    pub fn name(self) -> &'static str {
        match self {
            Class::Interactive => "interactive",
            Class::Bulk => "bulk",
        }
    }
}

/// The token ids of one text, with its special tokens, truncated to the model's window. They are never empty:
/// an empty text still has its special tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenIds(Box<[u32]>);

impl TokenIds {
    /// `None` where `ids` is empty.
    pub fn new(ids: Vec<u32>) -> Option<TokenIds> {
        (!ids.is_empty()).then(|| TokenIds(ids.into_boxed_slice()))
    }

    /// The ids, in text order.
    pub fn as_slice(&self) -> &[u32] {
        &self.0
    }

    /// Number of ids, at least one.
    #[allow(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

/// One text on its way to a batch. It always has room ([`Permit`]) and a caller to answer ([`Responder`]).
/// Dropping it returns the room and answers the caller.
pub struct Request {
    /// The text.
    pub tokens: TokenIds,
    /// Context of the request that it belongs to.
    pub context: RequestContext,
    /// Time at which its token ids were ready.
    pub tokenized: Nanos,
    /// The room it takes.
    pub permit: Permit,
    /// The duty to answer it.
    pub responder: Responder,
}

impl Request {
    /// Answers a request that did not run.
    pub fn refuse(self, r: Rejection, now: Nanos) {
        let finished = now.max(self.tokenized);
        self.answer(Err(r), finished, finished);
    }

    /// Answers with the times of the batch. Clock readings out of order count as zero time, so the stages
    /// still add up to the total.
    pub(crate) fn answer(self, outcome: Outcome, started: Nanos, finished: Nanos) {
        let started = started.max(self.tokenized);
        let finished = finished.max(started);
        let stages = Stages {
            tokenize: self.tokenized.since(self.context.received),
            queue: started.since(self.tokenized),
            execute: finished.since(started),
            finished,
            tokens: self.tokens.len(),
        };
        // Room returns first: the caller may send its next text as soon as it has the answer.
        drop(self.permit);
        self.responder.answer(outcome, stages);
    }

    /// Reason why running this would be a waste: the caller is gone, or the deadline has passed.
    pub(crate) fn dead(&self, now: Nanos) -> Option<Rejection> {
        if self.responder.is_cancelled() {
            Some(Rejection::Cancelled)
        } else if self.context.deadline.is_some_and(|deadline| deadline <= now) {
            Some(Rejection::DeadlineExceeded(
                "it passed while the text waited for a batch",
            ))
        } else {
            None
        }
    }
}
