//! OpenAI's embeddings API: `POST /v1/embeddings`, `GET /v1/models`.

mod response;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Response, StatusCode};
use penstock_models::Task;
use serde::Deserialize;
use serde_json::json;

use self::response::{self as answer, VectorEncoding};
use super::texts::{Texts, parse};
use super::{Http, PathParts, as_inputs, dimensions, some};
use crate::http::response::{Dialect, Refusal, json};
use penstock_engine::rows::Shape;

/// The body of `POST /v1/embeddings`. An unknown argument is refused, as OpenAI does.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    input: Texts,
    model: Option<String>,
    encoding_format: Option<VectorEncoding>,
    dimensions: Option<u64>,
    /// Accepted and ignored: it names a person, and is not stored.
    #[serde(rename = "user")]
    _user: Option<serde::de::IgnoredAny>,
}

pub async fn embeddings(State(http): State<Arc<Http>>, headers: HeaderMap, body: Body) -> Response<Body> {
    match embed(&http, &headers, body).await {
        Ok(response) => response,
        Err(refusal) => Dialect::OpenAi.refuse(&refusal),
    }
}

async fn embed(http: &Http, headers: &HeaderMap, body: Body) -> Result<Response<Body>, Refusal> {
    let read = http.read(headers, body).await;
    let context = http.context();
    let mut served = None;
    let preparing = async {
        let request: Request = parse(read?, "input").await?;
        let model = served.insert(http.fitting(request.model.as_deref(), Task::Embedding)?);
        // OpenAI's embeddings always have length one, and its users' code relies on it.
        let shape = Shape {
            normalize: true,
            dimensions: dimensions(request.dimensions, model)?,
        };
        let texts = some("input", request.input.into_vec())?;
        let call = Http::call(model, as_inputs(texts), context);
        Ok((call, shape, request.encoding_format.unwrap_or_default()))
    };
    let prepared = preparing.await;
    let (call, shape, encoding) = http.counted(served.as_deref(), &context, prepared)?;
    let scored = http.service.score(call).await?;
    answer::embeddings(&scored, shape, encoding).await
}

pub async fn models(State(http): State<Arc<Http>>) -> Response<Body> {
    let data: Vec<_> = http.names().iter().map(|name| http.model_card(name)).collect();
    json(StatusCode::OK, &json!({ "object": "list", "data": data }))
}

pub async fn model(State(http): State<Arc<Http>>, parts: PathParts) -> Response<Body> {
    match http.service.repository().find(&parts.model, "") {
        Ok(served) => json(StatusCode::OK, &http.model_card(&served.name)),
        Err(rejection) => Dialect::OpenAi.refuse(&rejection.into()),
    }
}

impl Http {
    fn model_card(&self, name: &str) -> serde_json::Value {
        json!({ "id": name, "object": "model", "created": self.started, "owned_by": "penstock" })
    }
}
