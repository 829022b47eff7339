//! Records that come in, events on their way, and the effects that leave.

use std::fmt;
use std::sync::Arc;

use super::score::{Question, Ticket};
use crate::expression::{EvalError, Position};
use crate::value::Value;

/// A record of a source.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// The source's place among the nodes.
    pub source: usize,
    /// Its partition.
    pub partition: i32,
    /// Its offset in the partition.
    pub offset: i64,
    /// Its own timestamp, if it has one.
    pub timestamp: Option<i64>,
    /// Its key, if it has one.
    pub key: Option<&'a str>,
    /// Its bytes.
    pub value: &'a [u8],
}

/// The record that something comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    /// The source's place among the nodes.
    pub source: usize,
    /// Partition of the record.
    pub partition: i32,
    /// Offset of the record.
    pub offset: i64,
}

impl Origin {
    pub(super) fn position(self) -> Position {
        (self.source, self.partition, self.offset)
    }
}

impl Record<'_> {
    pub(super) fn origin(&self) -> Origin {
        Origin {
            source: self.source,
            partition: self.partition,
            offset: self.offset,
        }
    }
}

/// Something that the world has to do.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Ask a model, and give the answer with the ticket.
    Score {
        /// Ticket of the answer.
        ticket: Ticket,
        /// Name of the model.
        model: String,
        /// Its input.
        question: Question,
    },
    /// Write a row to a sink.
    Output(Output),
    /// Keep a record that cannot be worked on.
    DeadLetter(DeadLetter),
}

/// A row of a sink.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// The sink's place among the nodes.
    pub sink: usize,
    /// Key of the row.
    pub key: Option<Arc<str>>,
    /// Values of the sink's columns.
    pub row: Vec<Value>,
    /// The record that it comes from.
    pub origin: Origin,
    /// Event time.
    pub time: i64,
}

/// A record that cannot be worked on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The node that refused it.
    pub node: usize,
    /// The reason.
    pub reason: Reason,
    /// The reason in words.
    pub detail: String,
    /// The record.
    pub origin: Origin,
    /// Its key, if it has one.
    pub key: Option<Arc<str>>,
}

/// Reason of a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// The record does not have the declared form.
    Value,
    /// The event time is missing, or no time.
    EventTime,
    /// The event time is too far ahead of the record's timestamp.
    Future,
    /// The record is further behind the watermark than its session allows.
    Late,
    /// A part of the key is absent or null.
    Key,
    /// An expression has no value.
    Expression,
    /// The model has no answer.
    Model,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Reason; 7] = [
        Reason::Value,
        Reason::EventTime,
        Reason::Future,
        Reason::Late,
        Reason::Key,
        Reason::Expression,
        Reason::Model,
    ];

    /// Its name in dead letters, tests and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Value => "value",
            Reason::EventTime => "event_time",
            Reason::Future => "future",
            Reason::Late => "late",
            Reason::Key => "key",
            Reason::Expression => "expression",
            Reason::Model => "model",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An event between two nodes.
#[derive(Clone, Debug)]
pub(super) struct Event {
    /// Values of the scope's slots.
    pub(super) row: Vec<Value>,
    pub(super) origin: Origin,
    pub(super) time: i64,
    /// Time by which it was behind its partition's watermark when it came.
    pub(super) late_by: i64,
    pub(super) key: Option<Arc<str>>,
}

/// Reason why a node cannot work on an event.
#[derive(Debug)]
pub(super) struct Lost {
    pub(super) reason: Reason,
    pub(super) detail: String,
}

impl Lost {
    pub(super) fn new(reason: Reason, detail: impl Into<String>) -> Lost {
        Lost {
            reason,
            detail: detail.into(),
        }
    }
}

impl From<EvalError> for Lost {
    fn from(error: EvalError) -> Lost {
        Lost::new(Reason::Expression, error.to_string())
    }
}
