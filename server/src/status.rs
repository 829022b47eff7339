//! The one table from a [`Rejection`] to the answer of each protocol. It has no wildcard arm, so a new
//! rejection does not compile without a row.

use axum::http::StatusCode;
use penstock_core::{Rejection, Retry};
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

/// Codes of a rejection in each protocol.
struct Row {
    grpc: Code,
    /// On the v2 protocol, as Triton answers; its clients retry 503 only.
    v2: StatusCode,
    /// On the OpenAI and text-embeddings-inference routes.
    rest: StatusCode,
}

fn row(rejection: &Rejection) -> Row {
    let same = |grpc, http| Row {
        grpc,
        v2: http,
        rest: http,
    };
    match rejection {
        Rejection::Invalid(_) => same(Code::InvalidArgument, StatusCode::BAD_REQUEST),
        Rejection::NotFound(_) => same(Code::NotFound, StatusCode::NOT_FOUND),
        Rejection::Overloaded { .. } => Row {
            grpc: Code::Unavailable,
            v2: StatusCode::SERVICE_UNAVAILABLE,
            rest: StatusCode::TOO_MANY_REQUESTS,
        },
        Rejection::DeadlineExceeded(_) => same(Code::DeadlineExceeded, StatusCode::GATEWAY_TIMEOUT),
        // 499 is the code that proxies log for a disconnected client; the answer is never read.
        Rejection::Cancelled => same(
            Code::Cancelled,
            StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
        ),
        Rejection::NotFinite { .. } | Rejection::Model(_) => {
            same(Code::Internal, StatusCode::INTERNAL_SERVER_ERROR)
        }
        // Memory may suffice later, or at another replica. A lost request is a fault of the server, so another
        // replica may answer it.
        Rejection::NotReady(_) | Rejection::ShuttingDown | Rejection::NoMemory(_) | Rejection::Lost => {
            same(Code::Unavailable, StatusCode::SERVICE_UNAVAILABLE)
        }
    }
}

/// The gRPC code.
pub fn grpc_code(rejection: &Rejection) -> Code {
    row(rejection).grpc
}

/// Longest message of an answer. Clients take some kilobytes of trailers, in which a byte may become three.
const MESSAGE_BYTES_MAX: usize = 2 << 10;

/// The message of a rejection, cut to a length that every client takes.
pub fn message(rejection: &Rejection) -> String {
    cut(rejection.to_string())
}

/// `message`, cut to a length that every client takes.
pub fn cut(mut message: String) -> String {
    if message.len() > MESSAGE_BYTES_MAX {
        message.truncate(message.floor_char_boundary(MESSAGE_BYTES_MAX));
        message.push('…');
    }
    message
}

/// The gRPC status: code, message, and `retry-after` in seconds where a retry makes sense.
pub fn to_status(rejection: &Rejection) -> Status {
    let mut status = Status::new(grpc_code(rejection), message(rejection));
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
    fn a_long_message_is_cut_between_characters() {
        let long = Rejection::Invalid("ü".repeat(MESSAGE_BYTES_MAX));
        let message = message(&long);
        assert!(message.len() <= MESSAGE_BYTES_MAX + 3 && message.ends_with("ü…"));
        assert_eq!(cut("short".into()), "short");
    }

    #[test]
    fn a_client_error_is_never_retried() {
        let wrong = Rejection::Invalid("shape [2,2], expected [n]".into());
        assert_eq!(retry_after(&wrong), None);
        assert_eq!(to_status(&wrong).code(), Code::InvalidArgument);
    }
}
