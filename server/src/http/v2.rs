//! The v2 routes without inference: health, metadata, configuration, statistics, repository.

pub(crate) mod infer;
mod response;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Response, StatusCode};
use penstock_core::Rejection;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use self::response as answer;
use super::texts::parse;
use super::{Http, PathParts};
use crate::http::response::{Dialect, Refusal, bare, json as json_answer};
use crate::v2::description::{self, EXTENSIONS, SERVER_NAME};

pub async fn server() -> Response<Body> {
    let version = env!("CARGO_PKG_VERSION");
    json_answer(
        StatusCode::OK,
        &json!({ "name": SERVER_NAME, "version": version, "extensions": EXTENSIONS }),
    )
}

pub async fn live(State(http): State<Arc<Http>>) -> Response<Body> {
    bare(if http.service.is_live() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    })
}

pub async fn ready(State(http): State<Arc<Http>>) -> Response<Body> {
    bare(if http.service.is_ready() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    })
}

pub async fn model_ready(State(http): State<Arc<Http>>, parts: PathParts) -> Response<Body> {
    match http.service.repository().find(&parts.model, &parts.version) {
        Ok(_) => bare(StatusCode::OK),
        Err(rejection) => Dialect::V2.refuse(&rejection.into()),
    }
}

pub async fn metadata(State(http): State<Arc<Http>>, parts: PathParts) -> Response<Body> {
    let repository = http.service.repository();
    told(repository.find(&parts.model, &parts.version).and_then(|served| {
        let versions = repository.versions(&parts.model)?;
        Ok(answer::metadata(&served, &versions))
    }))
}

pub async fn config(State(http): State<Arc<Http>>, parts: PathParts) -> Response<Body> {
    told(
        http.service
            .repository()
            .find(&parts.model, &parts.version)
            .map(|served| answer::config(&served)),
    )
}

pub async fn statistics(State(http): State<Arc<Http>>, parts: PathParts) -> Response<Body> {
    let served = description::versions(http.service.repository(), &parts.model, &parts.version);
    told(served.map(|served| answer::statistics(&served)))
}

fn told(value: Result<Value, Rejection>) -> Response<Body> {
    match value {
        Ok(value) => json_answer(StatusCode::OK, &value),
        Err(rejection) => Dialect::V2.refuse(&rejection.into()),
    }
}

/// The body of the repository's index request.
#[derive(Debug, Default, Deserialize)]
struct Index {
    ready: Option<bool>,
}

/// The body of a load or an unload.
#[derive(Debug, Default, Deserialize)]
struct Control {
    parameters: Option<Map<String, Value>>,
}

pub async fn index(State(http): State<Arc<Http>>, headers: HeaderMap, body: Body) -> Response<Body> {
    let Index { ready } = match optional(&http, &headers, body).await {
        Ok(request) => request,
        Err(refusal) => return Dialect::V2.refuse(&refusal),
    };
    let entries = description::index(http.service.repository(), ready.unwrap_or(false));
    let entries: Vec<_> = entries.map(answer::index_entry).collect();
    json_answer(StatusCode::OK, &entries)
}

pub async fn load(
    State(http): State<Arc<Http>>,
    parts: PathParts,
    headers: HeaderMap,
    body: Body,
) -> Response<Body> {
    let loaded = async {
        let Control { parameters } = optional(&http, &headers, body).await?;
        http.check_control(&headers)?;
        description::check_load(parameters.unwrap_or_default().keys())?;
        let repository = Arc::clone(http.service.repository());
        // A client that gives up waiting must not leave a model half replaced.
        let loading = tokio::spawn(async move { repository.load(&parts.model).await });
        Ok(loading.await.unwrap_or(Err(Rejection::Lost))?)
    };
    done(loaded.await)
}

pub async fn unload(
    State(http): State<Arc<Http>>,
    parts: PathParts,
    headers: HeaderMap,
    body: Body,
) -> Response<Body> {
    let unloaded = async {
        let Control { parameters } = optional(&http, &headers, body).await?;
        http.check_control(&headers)?;
        description::check_unload(parameters.unwrap_or_default().keys())?;
        Ok(http.service.repository().unload(&parts.model).await?)
    };
    done(unloaded.await)
}

fn done(outcome: Result<(), Refusal>) -> Response<Body> {
    match outcome {
        Ok(()) => bare(StatusCode::OK),
        Err(refusal) => Dialect::V2.refuse(&refusal),
    }
}

/// An optional body.
async fn optional<T: DeserializeOwned + Default + Send + 'static>(
    http: &Http,
    headers: &HeaderMap,
    body: Body,
) -> Result<T, Refusal> {
    let whole = http.read(headers, body).await?;
    if whole.as_ref().is_empty() {
        Ok(T::default())
    } else {
        // Bodies of the repository hold no texts.
        parse(whole, "").await
    }
}
