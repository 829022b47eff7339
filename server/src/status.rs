//! The one table from a [`Rejection`] to the answer of each protocol. It has no wildcard arm, so a new
//! rejection does not compile without a row.

use axum::http::StatusCode;
use penstock_core::{Rejection, Retry};
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

use penstock_telemetry::metrics::DeadReason;

/// Codes of a rejection in each protocol.
struct Row {
    grpc: Code,
    /// On the v2 protocol, as Triton answers; its clients retry 503 only.
    v2: StatusCode,
    /// On the OpenAI and text-embeddings-inference routes.
    rest: StatusCode,
    /// Dead-letter reason of a rejected record; `None` if the record is not at fault and is retried.
    dead: Option<DeadReason>,
}

fn row(rejection: &Rejection) -> Row {
    let same = |grpc, http| Row {
        grpc,
        v2: http,
        rest: http,
        dead: None,
    };
    let dead = |reason, row: Row| Row {
        dead: Some(reason),
        ..row
    };
    let failed = || same(Code::Internal, StatusCode::INTERNAL_SERVER_ERROR);
    let not_ready = || same(Code::Unavailable, StatusCode::SERVICE_UNAVAILABLE);
    match rejection {
        Rejection::Invalid(_) => dead(
            DeadReason::Invalid,
            same(Code::InvalidArgument, StatusCode::BAD_REQUEST),
        ),
        Rejection::NotFound(_) => dead(
            DeadReason::UnknownModel,
            same(Code::NotFound, StatusCode::NOT_FOUND),
        ),
        Rejection::Overloaded { .. } => Row {
            grpc: Code::Unavailable,
            v2: StatusCode::SERVICE_UNAVAILABLE,
            rest: StatusCode::TOO_MANY_REQUESTS,
            dead: None,
        },
        Rejection::DeadlineExceeded(_) => dead(
            DeadReason::Deadline,
            same(Code::DeadlineExceeded, StatusCode::GATEWAY_TIMEOUT),
        ),
        // 499 is the code that proxies log for a disconnected client; the answer is never read.
        Rejection::Cancelled => same(
            Code::Cancelled,
            StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
        ),
        Rejection::NotReady(_) | Rejection::ShuttingDown => not_ready(),
        Rejection::NotFinite { .. } => dead(DeadReason::NotFinite, failed()),
        Rejection::Model(_) => dead(DeadReason::Model, failed()),
        // Memory may suffice later, or at another replica.
        Rejection::NoMemory(_) => dead(DeadReason::Model, not_ready()),
        // A fault of the server, so another replica may answer the request.
        Rejection::Lost => same(Code::Unavailable, StatusCode::SERVICE_UNAVAILABLE),
    }
}

/// The gRPC code.
pub fn grpc_code(rejection: &Rejection) -> Code {
    row(rejection).grpc
}

/// The gRPC status: code, message, and `retry-after` in seconds where a retry makes sense.
pub fn to_status(rejection: &Rejection) -> Status {
    let mut status = Status::new(grpc_code(rejection), rejection.to_string());
    if let Some(seconds) = retry_after(rejection) {
        status
            .metadata_mut()
            .insert("retry-after", MetadataValue::from(seconds));
    }
    status
}

/// The HTTP status on the v2 protocol.
pub fn http_status(rejection: &Rejection) -> StatusCode {
    row(rejection).v2
}

/// The HTTP status on the OpenAI and text-embeddings-inference routes.
pub fn http_status_rest(rejection: &Rejection) -> StatusCode {
    row(rejection).rest
}

/// Seconds after which the same request may succeed, at least one.
pub fn retry_after(rejection: &Rejection) -> Option<u64> {
    match rejection.retry() {
        Retry::Never => None,
        Retry::After(wait) => Some(wait.as_secs().max(1)),
    }
}

/// Dead-letter reason of a rejected record; `None` if the record is retried.
pub fn dead_letter(rejection: &Rejection) -> Option<DeadReason> {
    row(rejection).dead
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overload_is_503_on_v2_and_429_on_the_rest_with_a_retry() {
        let full = Rejection::Overloaded {
            what: "queue",
            used: 8,
            bound: 8,
            unit: "texts",
        };
        assert_eq!(http_status(&full), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(http_status_rest(&full), StatusCode::TOO_MANY_REQUESTS);
        let status = to_status(&full);
        assert_eq!(status.code(), Code::Unavailable);
        assert_eq!(status.metadata().get("retry-after").unwrap(), "1");
    }

    #[test]
    fn a_record_is_dead_only_for_what_it_did_itself() {
        assert_eq!(
            dead_letter(&Rejection::Invalid(String::new())),
            Some(DeadReason::Invalid)
        );
        assert_eq!(dead_letter(&Rejection::NotReady(String::new())), None);
        assert_eq!(dead_letter(&Rejection::ShuttingDown), None);
        assert_eq!(dead_letter(&Rejection::Lost), None);
    }

    #[test]
    fn a_client_error_is_never_retried() {
        let wrong = Rejection::Invalid("shape [2,2], expected [n]".into());
        assert_eq!(retry_after(&wrong), None);
        assert_eq!(to_status(&wrong).code(), Code::InvalidArgument);
    }
}
