//! The metrics port: `/metrics` for Prometheus, `/health` and the v2 protocol's health routes for probes.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;

use crate::listen::http1::{self, ConnectionBounds};
use crate::listen::{BoundedListener, DRAIN_SILENCE_MAX};
use penstock_engine::service::InferenceService;

use crate::status::http_status;
use penstock_core::Rejection;
/// The Prometheus text format.
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Longest life of an idle connection: a scraper returns within a minute, and reads at once.
const TIMEOUT: Duration = Duration::from_secs(75);

/// Serves until `closed` resolves.
pub async fn serve(
    service: Arc<InferenceService>,
    listener: BoundedListener,
    closed: impl Future<Output = ()>,
) -> io::Result<()> {
    let bounds = ConnectionBounds {
        head_timeout: TIMEOUT,
        stall_timeout: TIMEOUT,
        drain_silence_max: DRAIN_SILENCE_MAX,
    };
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/health", get(health))
        .route("/v2/health/live", get(live))
        .route("/v2/health/ready", get(health))
        .with_state(service);
    let refuse = |refused: &Rejection| (http_status(refused), refused.to_string()).into_response();
    http1::accept(listener, router, bounds, refuse, closed).await;
    Ok(())
}

async fn metrics(State(service): State<Arc<InferenceService>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], service.metrics().render())
}

async fn health(State(service): State<Arc<InferenceService>>) -> (StatusCode, &'static str) {
    if service.is_ready() {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
    }
}

/// Probes ask here rather than at the port of the clients, who can take all connections of theirs.
async fn live() -> &'static str {
    "live\n"
}
