//! HTTP: three dialects on one port. Each handler turns bytes into a request for the service.

mod body;
mod inputs;
pub(crate) mod measure;
mod openai;
mod response;
mod tei;
mod texts;
pub(crate) mod v2;

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequestParts, RawPathParams, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Response, StatusCode, Uri};
use axum::routing::{get, post};
use penstock_core::{Rejection, RequestContext, Source};
use penstock_models::Task;

use self::body::{Bodies, Whole};
use self::response::{Dialect, Refusal};
use crate::control;
use crate::listen::http1::{self, ConnectionBounds};
use crate::listen::{BoundedListener, DRAIN_SILENCE_MAX, Pace};
use penstock_config::ModelControl;
use penstock_engine::request::{InferenceRequest, Input};
use penstock_engine::served_model::{ServedModel, WhenFull};
use penstock_engine::service::InferenceService;

/// Longest time for a request's head and between requests; a load balancer's default is a minute.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);

/// Longest time that an answer waits for a client that reads nothing.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// State of all handlers.
pub(crate) struct Http {
    service: Arc<InferenceService>,
    control: ModelControl,
    bodies: Bodies,
    /// Seconds since the epoch, for `GET /v1/models`.
    started: u64,
}

/// Serves HTTP until `shutdown`, then lets accepted requests finish.
pub async fn serve(
    service: Arc<InferenceService>,
    control: ModelControl,
    listener: BoundedListener,
    shutdown: impl Future<Output = ()>,
) -> std::io::Result<()> {
    let bounds = ConnectionBounds {
        head_timeout: HEAD_TIMEOUT,
        stall_timeout: STALL_TIMEOUT,
        drain_silence_max: DRAIN_SILENCE_MAX,
    };
    let app = router(service, control, Pace::REQUEST);
    let refuse = |full: &Rejection| Dialect::V2.refuse(&full.clone().into());
    http1::accept(listener, app, bounds, refuse, shutdown).await;
    Ok(())
}

fn router(service: Arc<InferenceService>, control: ModelControl, pace: Pace) -> Router {
    let limits = service.limits();
    let bodies = Bodies::new(
        limits.max_request_bytes,
        limits.queue_bytes_max,
        limits.decoded_allowance(),
        pace,
    );
    let started = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |d| d.as_secs());
    Router::new()
        .route("/v2", get(v2::server))
        .route("/v2/health/live", get(v2::live))
        .route("/v2/health/ready", get(v2::ready))
        .route("/v2/models/stats", get(v2::statistics))
        .route("/v2/models/{model}", get(v2::metadata))
        .route("/v2/models/{model}/ready", get(v2::model_ready))
        .route("/v2/models/{model}/config", get(v2::config))
        .route("/v2/models/{model}/stats", get(v2::statistics))
        .route("/v2/models/{model}/infer", post(v2::infer::infer))
        .route("/v2/models/{model}/versions/{version}", get(v2::metadata))
        .route(
            "/v2/models/{model}/versions/{version}/ready",
            get(v2::model_ready),
        )
        .route("/v2/models/{model}/versions/{version}/config", get(v2::config))
        .route("/v2/models/{model}/versions/{version}/stats", get(v2::statistics))
        .route(
            "/v2/models/{model}/versions/{version}/infer",
            post(v2::infer::infer),
        )
        .route("/v2/repository/index", post(v2::index))
        .route("/v2/repository/models/{model}/load", post(v2::load))
        .route("/v2/repository/models/{model}/unload", post(v2::unload))
        .route("/v1/embeddings", post(openai::embeddings))
        .route("/v1/models", get(openai::models))
        .route("/v1/models/{model}", get(openai::model))
        .route("/embed", post(tei::embed))
        .route("/predict", post(tei::predict))
        .route("/embed_sparse", post(tei::unfitting))
        .route("/rerank", post(tei::unfitting))
        .route("/info", get(tei::info))
        .route("/health", get(tei::health))
        .fallback(no_route)
        .method_not_allowed_fallback(wrong_method)
        .with_state(Arc::new(Http {
            service,
            control,
            bodies,
            started,
        }))
}

async fn no_route(State(http): State<Arc<Http>>, uri: Uri, headers: HeaderMap, body: Body) -> Response<Body> {
    let path = uri.path();
    let refusal = http.read(&headers, body).await.err();
    let refusal =
        refusal.unwrap_or_else(|| Refusal::Http(StatusCode::NOT_FOUND, format!("there is no route {path}")));
    Dialect::of(path).refuse(&refusal)
}

async fn wrong_method(uri: Uri) -> Response<Body> {
    Dialect::of(uri.path()).refuse(&Refusal::Method)
}

impl Http {
    async fn read(&self, headers: &HeaderMap, body: Body) -> Result<Whole, Refusal> {
        self.bodies.read(headers, body).await
    }

    /// Whether a request with these headers may load and unload models.
    fn check_control(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        match control::http_refusal(self.control, headers) {
            None => Ok(()),
            Some(reason) => Err(Refusal::Http(StatusCode::FORBIDDEN, reason)),
        }
    }

    /// Context of a request that was just received.
    fn context(&self) -> RequestContext {
        RequestContext::new(Source::Http, self.service.clock().now())
    }

    /// Counts a request that was refused before the service could count it.
    fn counted<T>(
        &self,
        served: Option<&ServedModel>,
        context: &RequestContext,
        prepared: Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        prepared.inspect_err(|refusal| self.service.refused(served, context, &refusal.rejection()))
    }

    /// Names of all models, in the order of the repository's index: by name.
    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for entry in self.service.repository().index() {
            if !names.contains(&entry.name) {
                names.push(entry.name);
            }
        }
        names
    }

    /// The model of this name if it has the task; without a name, the first model with the task.
    fn fitting(&self, name: Option<&str>, task: Task) -> Result<Arc<ServedModel>, Refusal> {
        if let Some(name) = name {
            let served = self.service.repository().find(name, "")?;
            if served.spec.task == task {
                return Ok(served);
            }
            let does = served.spec.task.name();
            return Err(Refusal::Task(format!(
                "model {name} does {does}, this route needs {}",
                task.name()
            )));
        }
        let mut waiting = None;
        for name in self.names() {
            match self.service.repository().find(&name, "") {
                Ok(served) if served.spec.task == task => return Ok(served),
                Ok(_) => {}
                Err(rejection) => waiting = Some(rejection),
            }
        }
        // A model that does not serve now may be the right one.
        Err(match waiting {
            Some(rejection) => rejection.into(),
            None => Refusal::Task(format!("no served model does {}", task.name())),
        })
    }

    /// The first model that serves.
    fn first(&self) -> Result<Arc<ServedModel>, Refusal> {
        let mut last = Rejection::NotReady("no model is served".into());
        for name in self.names() {
            match self.service.repository().find(&name, "") {
                Ok(served) => return Ok(served),
                Err(rejection) => last = rejection,
            }
        }
        Err(last.into())
    }

    /// A request without parameters beyond its context.
    fn call(served: &Arc<ServedModel>, inputs: Vec<Input>, context: RequestContext) -> InferenceRequest {
        InferenceRequest {
            served: Arc::clone(served),
            inputs,
            context,
            room: WhenFull::Reject,
        }
    }
}

/// Checks the requested number of components of an embedding.
fn dimensions(wanted: Option<u64>, served: &ServedModel) -> Result<Option<usize>, Refusal> {
    let Some(wanted) = wanted else { return Ok(None) };
    let hidden = served.spec.hidden;
    match usize::try_from(wanted) {
        Ok(wanted) if (1..=hidden).contains(&wanted) => Ok(Some(wanted)),
        _ => {
            let message = format!(
                "dimensions is {wanted}; embeddings of model {} have 1 to {hidden}",
                served.name
            );
            Err(Refusal::Argument {
                name: "dimensions",
                message,
            })
        }
    }
}

/// At least one text or input.
fn some<T>(argument: &str, inputs: Vec<T>) -> Result<Vec<T>, Refusal> {
    if inputs.is_empty() {
        return Err(Refusal::Empty(format!(
            "{argument} is an empty array; send at least one text"
        )));
    }
    Ok(inputs)
}

fn as_inputs(texts: Vec<String>) -> Vec<Input> {
    texts.into_iter().map(Input::Text).collect()
}

/// Model and version of a path; empty if the path has none.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct PathParts {
    model: String,
    version: String,
}

impl<S: Send + Sync> FromRequestParts<S> for PathParts {
    type Rejection = Response<Body>;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<PathParts, Response<Body>> {
        let params = RawPathParams::from_request_parts(parts, state)
            .await
            .map_err(|_| Dialect::of(parts.uri.path()).refuse(&Refusal::invalid("the path is not UTF-8")))?;
        let mut found = PathParts::default();
        for (name, value) in &params {
            match name {
                "model" => value.clone_into(&mut found.model),
                _ => value.clone_into(&mut found.version),
            }
        }
        Ok(found)
    }
}
