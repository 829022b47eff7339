//! Routes of text-embeddings-inference: `/embed`, `/predict`, `/info`, `/health`, and a clear refusal of
//! `/embed_sparse` and `/rerank` while no served task fits them.
//!
//! These routes name no model. `?model=NAME` chooses one; otherwise the first model by name with the right
//! task answers.

mod response;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, Response, StatusCode, Uri};
use penstock_models::Task;
use serde::Deserialize;

use self::response as answer;
use super::inputs::Inputs;
use super::texts::{Predicted, Texts, parse};
use super::{Http, as_inputs, dimensions, some};
use crate::http::response::{Dialect, Refusal, bare, json};
use penstock_engine::request::Input;
use penstock_engine::rows::Shape;

/// The body of `/embed`. Fields that text-embeddings-inference ignores are ignored here too.
#[derive(Debug, Deserialize)]
struct Embed {
    inputs: Inputs,
    truncate: Option<bool>,
    truncation_direction: Option<String>,
    prompt_name: Option<String>,
    normalize: Option<bool>,
    dimensions: Option<u64>,
}

/// The body of `/predict`.
#[derive(Debug, Deserialize)]
struct Predict {
    inputs: Predicted,
    truncate: Option<bool>,
    truncation_direction: Option<String>,
    raw_scores: Option<bool>,
}

pub async fn embed(
    State(http): State<Arc<Http>>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Response<Body> {
    match embedded(&http, &uri, &headers, body).await {
        Ok(response) => response,
        Err(refusal) => Dialect::Tei.refuse(&refusal),
    }
}

async fn embedded(
    http: &Http,
    uri: &Uri,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response<Body>, Refusal> {
    let read = http.read(headers, body).await;
    let context = http.context();
    let mut served = None;
    let preparing = async {
        let request: Embed = parse(read?, "inputs").await?;
        rightwards(request.truncation_direction.as_deref())?;
        if let Some(name) = &request.prompt_name {
            let message = format!(
                "prompt_name is {name:?}, but the model has no prompts; put the prompt into the text"
            );
            return Err(Refusal::Argument {
                name: "prompt_name",
                message,
            });
        }
        let model = served.insert(http.fitting(named(uri)?.as_deref(), Task::Embedding)?);
        let dimensions = dimensions(request.dimensions, model)?;
        let shape = Shape {
            normalize: request.normalize.unwrap_or(true),
            dimensions,
        };
        let inputs = some("inputs", request.inputs.0)?;
        let call = Http::call(model, inputs, context.truncated(request.truncate));
        Ok((call, shape))
    };
    let prepared = preparing.await;
    let (call, shape) = http.counted(served.as_deref(), &context, prepared)?;
    let characters = characters(&call.inputs);
    let scored = http.service.score(call).await?;
    answer::embeddings(&scored, shape, characters).await
}

pub async fn predict(
    State(http): State<Arc<Http>>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Response<Body> {
    match predicted(&http, &uri, &headers, body).await {
        Ok(response) => response,
        Err(refusal) => Dialect::Tei.refuse(&refusal),
    }
}

async fn predicted(
    http: &Http,
    uri: &Uri,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response<Body>, Refusal> {
    let read = http.read(headers, body).await;
    let context = http.context();
    let mut served = None;
    let preparing = async {
        let request: Predict = parse(read?, "inputs").await?;
        rightwards(request.truncation_direction.as_deref())?;
        let model = served.insert(http.fitting(named(uri)?.as_deref(), Task::SequenceClassification)?);
        let Predicted(inputs) = request.inputs;
        let single = matches!(inputs, Texts::One(_));
        let texts = some("inputs", inputs.into_vec())?;
        let call = Http::call(model, as_inputs(texts), context.truncated(request.truncate));
        Ok((call, single, request.raw_scores.unwrap_or(false)))
    };
    let prepared = preparing.await;
    let (call, single, raw) = http.counted(served.as_deref(), &context, prepared)?;
    let characters = characters(&call.inputs);
    let scored = http.service.score(call).await?;
    answer::predictions(&scored, single, raw, characters).await
}

/// A route whose task no model has. The body is read first, so that the connection can be reused.
pub async fn unfitting(
    State(http): State<Arc<Http>>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Response<Body> {
    let message = match uri.path() {
        "/rerank" => "no served model is a re-ranker",
        _ => "no served model makes sparse embeddings",
    };
    let refusal = http
        .read(&headers, body)
        .await
        .err()
        .unwrap_or_else(|| Refusal::Task(message.into()));
    Dialect::Tei.refuse(&refusal)
}

pub async fn info(State(http): State<Arc<Http>>, uri: Uri) -> Response<Body> {
    let served = named(&uri).and_then(|name| match name {
        Some(name) => Ok(http.service.repository().find(&name, "")?),
        None => http.first(),
    });
    match served {
        Ok(served) => json(StatusCode::OK, &answer::info(&served, http.service.limits())),
        Err(refusal) => Dialect::Tei.refuse(&refusal),
    }
}

pub async fn health(State(http): State<Arc<Http>>) -> Response<Body> {
    if http.service.is_ready() {
        return bare(StatusCode::OK);
    }
    let body = serde_json::json!({ "error": "not every model is ready", "error_type": "Unhealthy" });
    json(StatusCode::SERVICE_UNAVAILABLE, &body)
}

fn named(uri: &Uri) -> Result<Option<String>, Refusal> {
    #[derive(Deserialize)]
    struct Named {
        model: Option<String>,
    }
    let query = Query::<Named>::try_from_uri(uri);
    query
        .map(|named| named.0.model)
        .map_err(|e| Refusal::invalid(format!("the query of {uri} cannot be read: {e}")))
}

fn rightwards(direction: Option<&str>) -> Result<(), Refusal> {
    match direction {
        None => Ok(()),
        Some(right) if right.eq_ignore_ascii_case("right") => Ok(()),
        Some(other) => {
            let message = format!("truncation_direction is {other:?}; texts are cut at their end: \"right\"");
            Err(Refusal::Argument {
                name: "truncation_direction",
                message,
            })
        }
    }
}

/// Characters of the texts; token ids have none.
fn characters(inputs: &[Input]) -> usize {
    let of = |input: &Input| match input {
        Input::Text(text) => text.chars().count(),
        Input::TokenIds(_) => 0,
    };
    inputs.iter().map(of).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_names_the_model() {
        let named = |uri: &'static str| named(&Uri::from_static(uri));
        assert_eq!(named("/embed"), Ok(None));
        assert_eq!(named("/embed?other=1"), Ok(None));
        assert_eq!(named("/embed?model=my%20model"), Ok(Some("my model".into())));
        assert!(
            named("/embed?model=a&model=b").is_err(),
            "two names are no answer to which"
        );
    }

    #[test]
    fn texts_are_cut_on_the_right_alone() {
        assert_eq!(rightwards(Some("Right")), Ok(()));
        assert!(rightwards(Some("left")).is_err());
    }
}
