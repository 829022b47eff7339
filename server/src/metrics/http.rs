//! The metrics port: `/metrics` for Prometheus, `/health` for whoever watches the process.

use std::future::Future;
use std::io;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;

use crate::front::Front;

/// The Prometheus text format.
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Serves until `closed` resolves.
pub async fn serve(
    front: Arc<Front>,
    listener: TcpListener,
    closed: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/health", get(health))
        .with_state(front);
    axum::serve(listener, router).with_graceful_shutdown(closed).await
}

async fn metrics(State(front): State<Arc<Front>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], front.metrics().render())
}

async fn health(State(front): State<Arc<Front>>) -> (StatusCode, &'static str) {
    if front.is_ready() {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
    }
}
