//! What enters a batch: token ids, a class, the times that matter.

use super::admission::Permit;
use super::reply::{Outcome, Rejection, Responder, Stages};
use crate::time::Nanos;

/// Who waits for the answer: a person (gRPC, HTTP) or a stream (Kafka, files).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// Overtakes bulk work.
    Interactive,
    /// Fills what interactive work leaves, and is kept from starving by its age.
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

/// The token ids of one text, with its special tokens, truncated to the model's window. Never empty:
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

    /// How many there are: at least one.
    #[allow(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

/// One text on its way to a batch. It cannot exist without room ([`Permit`]) and without somebody to
/// answer ([`Responder`]); dropped, it gives the one back and answers the other.
pub struct Request {
    /// The text.
    pub tokens: TokenIds,
    /// Who waits for it.
    pub class: Class,
    /// When it came in.
    pub received: Nanos,
    /// When its token ids were ready.
    pub tokenized: Nanos,
    /// When its answer is worth nothing any more.
    pub deadline: Option<Nanos>,
    /// The room it takes.
    pub permit: Permit,
    /// The duty to answer it.
    pub responder: Responder,
}

impl Request {
    /// Answers without having run.
    pub fn refuse(self, r: Rejection, now: Nanos) {
        let finished = now.max(self.tokenized);
        self.answer(Err(r), finished, finished);
    }

    /// Answers with the times of its batch. Clock readings out of order count as no time, so that the
    /// stages still sum to the total.
    pub(crate) fn answer(self, outcome: Outcome, started: Nanos, finished: Nanos) {
        let started = started.max(self.tokenized);
        let finished = finished.max(started);
        let stages = Stages {
            tokenize: self.tokenized.since(self.received),
            queue: started.since(self.tokenized),
            execute: finished.since(started),
            finished,
            tokens: self.tokens.len(),
        };
        // Room first: whoever hears the answer may send the next text at once.
        drop(self.permit);
        self.responder.answer(outcome, stages);
    }

    /// The reason why running this would be a waste: nobody waits, or the time is over.
    pub(crate) fn dead(&self, now: Nanos) -> Option<Rejection> {
        if self.responder.is_cancelled() {
            Some(Rejection::Cancelled)
        } else if self.deadline.is_some_and(|deadline| deadline <= now) {
            Some(Rejection::DeadlineExceeded(
                "it passed while the text waited for a batch",
            ))
        } else {
            None
        }
    }
}
