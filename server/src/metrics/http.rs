//! The metrics port: `/metrics` for Prometheus, `/health` for whoever watches the process.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;

use crate::front::Front;
use crate::ingest::http::connection::{self, Bounds};

/// The Prometheus text format.
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A scraper comes again after a minute at most, and reads at once.
const TIMEOUT: Duration = Duration::from_secs(75);

/// Serves until `closed` resolves.
pub async fn serve(
    front: Arc<Front>,
    listener: TcpListener,
    closed: impl Future<Output = ()>,
) -> io::Result<()> {
    let bounds = Bounds {
        connections_max: front.limits().connections_max,
        head_timeout: TIMEOUT,
        stall_timeout: TIMEOUT,
    };
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/health", get(health))
        .with_state(front);
    connection::accept(listener, router, bounds, closed).await;
    Ok(())
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
