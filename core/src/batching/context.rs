//! Facts of a request that hold from its wire to its answer.

use super::request::Class;
use crate::time::Nanos;

/// Entrance by which a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// `KServe` v2 or `penstock.v1` over gRPC.
    Grpc,
    /// Any of the HTTP APIs.
    Http,
    /// A file of `penstock score`.
    File,
    /// The records of a Kafka topic.
    Kafka,
}

impl Source {
    /// Every source.
    pub const ALL: [Source; 4] = [Source::Grpc, Source::Http, Source::File, Source::Kafka];

    /// The name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Source::Grpc => "grpc",
            Source::Http => "http",
            Source::File => "file",
            Source::Kafka => "kafka",
        }
    }
}

/// Context of a request. Each wire makes one; admission, scoring and rendering read the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestContext {
    /// Its entrance.
    pub source: Source,
    /// Its priority.
    pub class: Class,
    /// Time of receipt.
    pub received: Nanos,
    /// Time from which its answer is worthless.
    pub deadline: Option<Nanos>,
    /// Whether an input longer than the model's window is cut or refused.
    pub truncate: bool,
}

impl RequestContext {
    /// An interactive request without a deadline, whose long texts are cut.
    pub fn new(source: Source, received: Nanos) -> RequestContext {
        RequestContext {
            source,
            class: Class::Interactive,
            received,
            deadline: None,
            truncate: true,
        }
    }

    /// The same request with the client's choice between cutting and refusing, if it made one.
    #[must_use]
    pub fn truncated(self, truncate: Option<bool>) -> RequestContext {
        RequestContext {
            truncate: truncate.unwrap_or(self.truncate),
            ..self
        }
    }

    /// Context of a later request of the same stream.
    #[must_use]
    pub fn again(self, received: Nanos) -> RequestContext {
        RequestContext { received, ..self }
    }

    /// The same request with an additional deadline; the earlier one counts.
    #[must_use]
    pub fn due(self, deadline: Option<Nanos>) -> RequestContext {
        RequestContext {
            deadline: earlier(self.deadline, deadline),
            ..self
        }
    }
}

/// The earlier of two optional times.
pub(super) fn earlier(a: Option<Nanos>, b: Option<Nanos>) -> Option<Nanos> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earlier_deadline_counts() {
        let context = RequestContext::new(Source::Grpc, Nanos(1));
        let (one, two) = (Some(Nanos(10)), Some(Nanos(20)));
        assert_eq!(context.due(one).due(two).deadline, one);
        assert_eq!(context.due(two).due(one).deadline, one);
        assert_eq!(context.due(two).due(None).deadline, two);
        assert_eq!(context.due(None).deadline, None);
    }
}
