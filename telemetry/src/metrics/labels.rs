//! Label values from closed sets, and counters arranged by them.

use std::sync::OnceLock;

use metrics::Counter;
use penstock_core::{Class, Rejection, Source};

use super::names::REQUESTS;
use super::series::Series;

/// Outcome of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum OutcomeLabel {
    /// Every text was scored.
    Ok,
    /// The request is invalid.
    Invalid,
    /// The model does not exist.
    NotFound,
    /// The model, or the server, does not serve at present.
    NotReady,
    /// A bound was reached.
    Overloaded,
    /// The deadline passed or could not be met.
    Deadline,
    /// The client cancelled or disconnected.
    Cancelled,
    /// The model or the server failed.
    Error,
}

impl OutcomeLabel {
    /// Every outcome.
    pub const ALL: [OutcomeLabel; 8] = [
        OutcomeLabel::Ok,
        OutcomeLabel::Invalid,
        OutcomeLabel::NotFound,
        OutcomeLabel::NotReady,
        OutcomeLabel::Overloaded,
        OutcomeLabel::Deadline,
        OutcomeLabel::Cancelled,
        OutcomeLabel::Error,
    ];

    /// Outcome of a rejected request.
    pub fn of(rejection: &Rejection) -> OutcomeLabel {
        match rejection {
            Rejection::Invalid(_) => OutcomeLabel::Invalid,
            Rejection::NotFound(_) => OutcomeLabel::NotFound,
            Rejection::Overloaded { .. } => OutcomeLabel::Overloaded,
            Rejection::DeadlineExceeded(_) => OutcomeLabel::Deadline,
            Rejection::Cancelled => OutcomeLabel::Cancelled,
            Rejection::NotReady(_) | Rejection::ShuttingDown | Rejection::NoMemory(_) => {
                OutcomeLabel::NotReady
            }
            Rejection::NotFinite { .. } | Rejection::Model(_) | Rejection::Lost => OutcomeLabel::Error,
        }
    }

    /// The label value.
    pub fn name(self) -> &'static str {
        match self {
            OutcomeLabel::Ok => "ok",
            OutcomeLabel::Invalid => "invalid",
            OutcomeLabel::NotFound => "not_found",
            OutcomeLabel::NotReady => "not_ready",
            OutcomeLabel::Overloaded => "overloaded",
            OutcomeLabel::Deadline => "deadline",
            OutcomeLabel::Cancelled => "cancelled",
            OutcomeLabel::Error => "error",
        }
    }

    /// Whether its duration counts as a latency. A request refused before admission takes microseconds;
    /// counting it would improve the p99 during an overload.
    pub(super) fn is_latency(self) -> bool {
        match self {
            OutcomeLabel::Ok | OutcomeLabel::Deadline | OutcomeLabel::Cancelled | OutcomeLabel::Error => true,
            OutcomeLabel::Invalid
            | OutcomeLabel::NotFound
            | OutcomeLabel::NotReady
            | OutcomeLabel::Overloaded => false,
        }
    }
}

/// Reason of a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadReason {
    /// The value, or the text in it, is not UTF-8.
    NotUtf8,
    /// The value is not JSON.
    NotJson,
    /// The field is missing.
    FieldMissing,
    /// The field does not hold a string.
    FieldNotText,
    /// The record is larger than `record_bytes_max`, or larger than the topic accepts.
    TooLarge,
    /// A header that the route honours holds an invalid value.
    Header,
    /// The model rejects the text.
    Invalid,
    /// The record asks for a model that does not exist.
    UnknownModel,
    /// The record's deadline passed, or could not be met.
    Deadline,
    /// The model failed on this text and not on others.
    Model,
    /// The model computed a NaN or an infinity for the text.
    NotFinite,
    /// The output topic rejects the result.
    Refused,
}

impl DeadReason {
    /// Every reason.
    pub const ALL: [DeadReason; 12] = [
        DeadReason::NotUtf8,
        DeadReason::NotJson,
        DeadReason::FieldMissing,
        DeadReason::FieldNotText,
        DeadReason::TooLarge,
        DeadReason::Header,
        DeadReason::Invalid,
        DeadReason::UnknownModel,
        DeadReason::Deadline,
        DeadReason::Model,
        DeadReason::NotFinite,
        DeadReason::Refused,
    ];

    /// Reason of a record that is rejected; `None` if the record is not at fault and is retried. There is no
    /// wildcard arm, so a new rejection does not compile without a decision.
    pub fn of(rejection: &Rejection) -> Option<DeadReason> {
        match rejection {
            Rejection::Invalid(_) => Some(DeadReason::Invalid),
            Rejection::NotFound(_) => Some(DeadReason::UnknownModel),
            Rejection::DeadlineExceeded(_) => Some(DeadReason::Deadline),
            Rejection::NotFinite { .. } => Some(DeadReason::NotFinite),
            // Memory may suffice later, or at another replica.
            Rejection::Model(_) | Rejection::NoMemory(_) => Some(DeadReason::Model),
            Rejection::Overloaded { .. }
            | Rejection::Cancelled
            | Rejection::NotReady(_)
            | Rejection::ShuttingDown
            | Rejection::Lost => None,
        }
    }

    /// The label value.
    pub fn name(self) -> &'static str {
        match self {
            DeadReason::NotUtf8 => "not_utf8",
            DeadReason::NotJson => "not_json",
            DeadReason::FieldMissing => "field_missing",
            DeadReason::FieldNotText => "field_not_text",
            DeadReason::TooLarge => "too_large",
            DeadReason::Header => "header",
            DeadReason::Invalid => "invalid",
            DeadReason::UnknownModel => "unknown_model",
            DeadReason::Deadline => "deadline",
            DeadReason::Model => "model",
            DeadReason::NotFinite => "not_finite",
            DeadReason::Refused => "refused",
        }
    }

    /// gRPC's name for the reason, carried by the dead letter.
    pub fn code(self) -> &'static str {
        match self {
            DeadReason::NotUtf8
            | DeadReason::NotJson
            | DeadReason::FieldMissing
            | DeadReason::FieldNotText
            | DeadReason::TooLarge
            | DeadReason::Header
            | DeadReason::Invalid
            | DeadReason::Refused => "INVALID_ARGUMENT",
            DeadReason::UnknownModel => "NOT_FOUND",
            DeadReason::Deadline => "DEADLINE_EXCEEDED",
            DeadReason::Model | DeadReason::NotFinite => "INTERNAL",
        }
    }
}

/// Reason why the position of a partition went back without a seek of the consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetReason {
    /// The log ends before the position, or was truncated before it.
    WentBack,
    /// The topic was deleted and created again.
    Remade,
}

impl ResetReason {
    /// Every reason.
    pub const ALL: [ResetReason; 2] = [ResetReason::WentBack, ResetReason::Remade];

    /// The label value.
    pub fn name(self) -> &'static str {
        match self {
            ResetReason::WentBack => "log_went_back",
            ResetReason::Remade => "topic_remade",
        }
    }
}

/// One `T` per source and class, created at first use: a series exists once it was seen.
pub(super) struct Cells<T> {
    cells: [[OnceLock<T>; Class::ALL.len()]; Source::ALL.len()],
}

impl<T> Default for Cells<T> {
    fn default() -> Cells<T> {
        Cells {
            cells: std::array::from_fn(|_| std::array::from_fn(|_| OnceLock::new())),
        }
    }
}

impl<T> Cells<T> {
    /// The cell of a source and a class.
    pub(super) fn at(&self, source: Source, class: Class, make: impl FnOnce() -> T) -> &T {
        self.cells[source as usize][class as usize].get_or_init(make)
    }
}

/// One counter per outcome.
pub(super) struct Outcomes([Counter; OutcomeLabel::ALL.len()]);

impl Outcomes {
    /// All outcomes of a source and class appear at once, zeros included: `rate` needs the zero before
    /// the first error.
    pub(super) fn new(series: &Series, model: &str, source: Source, class: Class) -> Outcomes {
        Outcomes(
            OutcomeLabel::ALL.map(|outcome| {
                series.counter(&REQUESTS, &[model, source.name(), class.name(), outcome.name()])
            }),
        )
    }

    pub(super) fn count(&self, outcome: OutcomeLabel) {
        self.0[outcome as usize].increment(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_dead_only_for_its_own_fault() {
        let invalid = Rejection::Invalid(String::new());
        assert_eq!(DeadReason::of(&invalid), Some(DeadReason::Invalid));
        let held = [
            Rejection::NotReady(String::new()),
            Rejection::ShuttingDown,
            Rejection::Lost,
        ];
        for rejection in held {
            assert_eq!(DeadReason::of(&rejection), None, "{rejection}");
        }
    }
}
