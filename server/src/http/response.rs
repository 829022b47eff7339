//! Error answers of HTTP in the dialect of each route, and the building blocks of JSON answers.

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, Response, StatusCode};
use penstock_core::Rejection;
use serde::Serialize;
use serde_json::{Value, json};

use crate::status;

/// Reason why a request got no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Rejected by the service.
    Rejected(Rejection),
    /// One argument of the body is wrong; the answer names it if the dialect has a place for it.
    Argument {
        /// Its name in the body.
        name: &'static str,
        /// Description of the error.
        message: String,
    },
    /// The required texts are missing or empty.
    Empty(String),
    /// The model has another task than the route.
    Task(String),
    /// A reason of HTTP: size, pace, encoding, route.
    Http(StatusCode, String),
    /// The route exists, with other methods.
    Method,
}

impl From<Rejection> for Refusal {
    fn from(rejection: Rejection) -> Refusal {
        Refusal::Rejected(rejection)
    }
}

impl Refusal {
    /// Refusal of a body that does not fit the route.
    pub fn invalid(message: impl Into<String>) -> Refusal {
        Refusal::Rejected(Rejection::Invalid(message.into()))
    }

    /// The rejection that counts in the metrics.
    pub fn rejection(&self) -> Rejection {
        match self {
            Refusal::Rejected(rejection) => rejection.clone(),
            _ => Rejection::Invalid(self.message()),
        }
    }

    fn message(&self) -> String {
        match self {
            Refusal::Rejected(rejection) => rejection.to_string(),
            Refusal::Argument { message, .. }
            | Refusal::Empty(message)
            | Refusal::Task(message)
            | Refusal::Http(_, message) => message.clone(),
            Refusal::Method => "method not allowed".into(),
        }
    }
}

/// API family of a route, which decides the form of errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// KServe v2 as Triton speaks it: `{"error"}`.
    V2,
    /// OpenAI: `{"error": {"message", "type", "param", "code"}}`.
    OpenAi,
    /// text-embeddings-inference: `{"error", "error_type"}`.
    Tei,
}

impl Dialect {
    /// The dialect of a path, known or not.
    pub fn of(path: &str) -> Dialect {
        match path.split('/').nth(1) {
            Some("v1") => Dialect::OpenAi,
            Some("v2") => Dialect::V2,
            _ => Dialect::Tei,
        }
    }

    /// The answer to a refused request.
    pub fn refuse(self, refusal: &Refusal) -> Response<Body> {
        let status = self.status(refusal);
        let message = status::cut(refusal.message());
        let body = match self {
            Dialect::V2 => json!({ "error": message }),
            Dialect::OpenAi => open_ai(refusal, status, &message),
            Dialect::Tei => json!({ "error": message, "error_type": tei_type(refusal) }),
        };
        let mut response = json(status, &body);
        if let Refusal::Rejected(rejection) = refusal
            && let Some(seconds) = status::retry_after(rejection)
        {
            response
                .headers_mut()
                .insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }

    fn status(self, refusal: &Refusal) -> StatusCode {
        match (refusal, self) {
            (Refusal::Rejected(rejection), Dialect::V2) => status::http_status(rejection),
            (Refusal::Rejected(rejection), Dialect::OpenAi | Dialect::Tei) => {
                status::http_status_rest(rejection)
            }
            // text-embeddings-inference's status for a model of another task.
            (Refusal::Task(_), Dialect::Tei) => StatusCode::FAILED_DEPENDENCY,
            (Refusal::Task(_), Dialect::V2 | Dialect::OpenAi)
            | (Refusal::Argument { .. } | Refusal::Empty(_), _) => StatusCode::BAD_REQUEST,
            (Refusal::Http(status, _), _) => *status,
            (Refusal::Method, _) => StatusCode::METHOD_NOT_ALLOWED,
        }
    }
}

fn open_ai(refusal: &Refusal, status: StatusCode, message: &str) -> Value {
    let (kind, code) = match refusal {
        Refusal::Rejected(Rejection::NotFound(_)) => ("invalid_request_error", Some("model_not_found")),
        Refusal::Rejected(Rejection::Overloaded { .. }) => ("rate_limit_error", Some("overloaded")),
        Refusal::Rejected(Rejection::DeadlineExceeded(_)) => ("server_error", Some("deadline_exceeded")),
        _ if status.is_server_error() => ("server_error", None),
        _ => ("invalid_request_error", None),
    };
    let param = match refusal {
        Refusal::Argument { name, .. } => Some(*name),
        Refusal::Empty(_) => Some("input"),
        Refusal::Rejected(Rejection::NotFound(_)) | Refusal::Task(_) => Some("model"),
        _ => None,
    };
    json!({ "error": { "message": message, "type": kind, "param": param, "code": code } })
}

fn tei_type(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::Rejected(rejection) => match rejection {
            Rejection::Invalid(_) | Rejection::NotFound(_) => "Validation",
            Rejection::NotReady(_) | Rejection::NoMemory(_) | Rejection::ShuttingDown => "Unhealthy",
            Rejection::Overloaded { .. } => "Overloaded",
            Rejection::DeadlineExceeded(_)
            | Rejection::Cancelled
            | Rejection::NotFinite { .. }
            | Rejection::Model(_)
            | Rejection::Lost => "Backend",
        },
        Refusal::Empty(_) => "Empty",
        Refusal::Task(_) => "Backend",
        Refusal::Argument { .. } | Refusal::Http(..) | Refusal::Method => "Validation",
    }
}

/// Appends a value to an answer that is written in pieces.
pub fn push_json<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) -> Result<(), Refusal> {
    // Only a map with non-string keys can fail, and no answer has one.
    serde_json::to_writer(out, value)
        .map_err(|e| Rejection::Model(format!("the answer is not JSON: {e}")).into())
}

/// Bytes of an answer between two turns for other connections. 8,192 embeddings are 40 MB of digits, which
/// would block them all.
const TURN_BYTES: usize = 128 * 1024;

/// Yields the thread during a long answer.
#[derive(Debug, Default)]
pub struct Turns {
    at: usize,
}

impl Turns {
    /// Yields once enough bytes were `written`.
    pub async fn give(&mut self, written: usize) {
        if written - self.at >= TURN_BYTES {
            self.at = written;
            tokio::task::yield_now().await;
        }
    }
}

/// A JSON answer.
pub fn json(status: StatusCode, body: &impl Serialize) -> Response<Body> {
    match serde_json::to_vec(body) {
        Ok(bytes) => bytes_with(status, "application/json", bytes),
        // Only a map with non-string keys can fail, and no answer has one.
        Err(error) => {
            let bytes = error.to_string().into_bytes();
            bytes_with(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", bytes)
        }
    }
}

/// An answer of bytes.
pub fn bytes_with(status: StatusCode, content_type: &'static str, bytes: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// An answer with a status and no body.
pub fn bare(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn check(dialect: Dialect, refusal: Refusal, status: u16, expected: Value) {
        let response = dialect.refuse(&refusal);
        assert_eq!(response.status().as_u16(), status, "{dialect:?} {refusal:?}");
        let bytes = axum::body::to_bytes(response.into_body(), 4096).await.unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&bytes).unwrap(), expected);
    }

    fn full() -> Refusal {
        Rejection::Overloaded {
            what: "the queue",
            used: 8,
            bound: 8,
            unit: "texts",
        }
        .into()
    }

    #[tokio::test]
    async fn an_error_speaks_the_dialect_of_its_route() {
        let message = "the queue is full: 8 of 8 texts are taken";
        check(Dialect::V2, full(), 503, json!({ "error": message })).await;
        check(
            Dialect::Tei,
            full(),
            429,
            json!({ "error": message, "error_type": "Overloaded" }),
        )
        .await;
        let error =
            json!({ "message": message, "type": "rate_limit_error", "param": null, "code": "overloaded" });
        check(Dialect::OpenAi, full(), 429, json!({ "error": error })).await;
        let none = Refusal::from(Rejection::NotFound("no model x".into()));
        let error = json!({
            "message": "no model x", "type": "invalid_request_error", "param": "model", "code": "model_not_found"
        });
        check(Dialect::OpenAi, none.clone(), 404, json!({ "error": error })).await;
        check(Dialect::V2, none, 404, json!({ "error": "no model x" })).await;
        let task = Refusal::Task("the model is no re-ranker".into());
        let body = json!({ "error": "the model is no re-ranker", "error_type": "Backend" });
        check(Dialect::Tei, task, 424, body).await;
    }

    #[test]
    fn only_rejections_that_may_succeed_later_have_a_retry_time() {
        for dialect in [Dialect::V2, Dialect::OpenAi, Dialect::Tei] {
            assert_eq!(dialect.refuse(&full()).headers()[RETRY_AFTER], "1");
            assert!(
                !dialect
                    .refuse(&Refusal::invalid("no"))
                    .headers()
                    .contains_key(RETRY_AFTER)
            );
        }
    }

    #[test]
    fn a_path_has_the_dialect_of_its_first_part() {
        assert_eq!(Dialect::of("/v1/nothing"), Dialect::OpenAi);
        assert_eq!(Dialect::of("/v2/models/x/infer"), Dialect::V2);
        assert_eq!(Dialect::of("/embed"), Dialect::Tei);
        assert_eq!(Dialect::of("/"), Dialect::Tei);
    }
}
