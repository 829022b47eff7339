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
use crate::v2::response::{EXTENSIONS, SERVER_NAME};
use penstock_engine::repository::{ModelState, Repository};
use penstock_engine::served_model::ServedModel;

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
    let repository = http.service.repository();
    let PathParts { model, version } = &parts;
    let served = if version.is_empty() {
        repository
            .versions(model)
            .map(|versions| served(repository, model, &versions))
    } else {
        repository.find(model, version).map(|served| vec![served])
    };
    told(served.map(|served| answer::statistics(&served)))
}

pub async fn all_statistics(State(http): State<Arc<Http>>) -> Response<Body> {
    let repository = http.service.repository();
    let versions = |name: &String| served(repository, name, &repository.versions(name).unwrap_or_default());
    let served: Vec<_> = http.names().iter().flat_map(versions).collect();
    told(Ok(answer::statistics(&served)))
}

/// Served models of the serving versions; one that leaves in between is omitted.
fn served(repository: &Repository, model: &str, versions: &[String]) -> Vec<Arc<ServedModel>> {
    versions
        .iter()
        .filter_map(|version| repository.find(model, version).ok())
        .collect()
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
    let ready = ready.unwrap_or(false);
    let entries = http.service.repository().index().into_iter();
    let entries = entries.filter(|entry| !ready || entry.state == ModelState::Ready);
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
        // A client must not make the server read files that the operator did not configure.
        if let Some(name) = parameters.unwrap_or_default().keys().next() {
            return Err(Refusal::invalid(format!(
                "load parameter {name:?} is not supported: a model is loaded as the server's configuration says"
            )));
        }
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
        // No model depends on another one, so this flag needs no action.
        if let Some(name) = parameters
            .unwrap_or_default()
            .keys()
            .find(|name| *name != "unload_dependents")
        {
            return Err(Refusal::invalid(format!(
                "unknown unload parameter {name:?}; known is unload_dependents"
            )));
        }
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
        parse(whole).await
    }
}
