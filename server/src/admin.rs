//! The metrics port: `/metrics` for Prometheus, `/health` and the v2 protocol's health routes for probes.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use bytes::Bytes;
use parking_lot::Mutex;

use crate::listen::http1::{self, ConnectionBounds};
use crate::listen::{BoundedListener, DRAIN_SILENCE_MAX};
use crate::status::http_status;
use penstock_core::Rejection;
use penstock_engine::service::InferenceService;

/// The Prometheus text format.
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Longest age of a page. Scrapers that ask without a pause would otherwise take the threads that serve requests.
const PAGE_AGE_MAX: Duration = Duration::from_secs(1);

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
    let admin = Arc::new(Admin {
        service,
        page: Mutex::default(),
    });
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/health", get(health))
        .route("/v2/health/live", get(live))
        .route("/v2/health/ready", get(health))
        .with_state(admin);
    let refuse = |refused: &Rejection| (http_status(refused), refused.to_string()).into_response();
    http1::accept(listener, router, bounds, refuse, closed).await;
    Ok(())
}

/// State of the handlers.
struct Admin {
    service: Arc<InferenceService>,
    page: Mutex<Page>,
}

/// The last page, and the time at which it was made.
#[derive(Default)]
struct Page {
    made: Option<Instant>,
    text: Bytes,
}

impl Page {
    /// The page, made anew by `make` if it is older than [`PAGE_AGE_MAX`].
    fn get(&mut self, now: Instant, make: impl FnOnce() -> String) -> Bytes {
        let fresh = self
            .made
            .is_some_and(|made| now.duration_since(made) < PAGE_AGE_MAX);
        if !fresh {
            self.text = make().into();
            self.made = Some(now);
        }
        self.text.clone()
    }
}

async fn metrics(State(admin): State<Arc<Admin>>) -> impl IntoResponse {
    // A page is some hundred kilobytes and takes milliseconds; one scraper makes it while the others wait.
    let page = admin
        .page
        .lock()
        .get(Instant::now(), || admin.service.metrics().render());
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], page)
}

async fn health(State(admin): State<Arc<Admin>>) -> (StatusCode, &'static str) {
    if admin.service.is_ready() {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
    }
}

/// Probes ask here rather than at the port of the clients, who can take all connections of theirs.
async fn live() -> &'static str {
    "live\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_made_once_a_second() {
        let start = Instant::now();
        let mut page = Page::default();
        let mut made = 0;
        for (ms, expected) in [(0, 1), (0, 1), (999, 1), (1000, 2), (1500, 2), (2001, 3)] {
            let text = page.get(start + Duration::from_millis(ms), || {
                made += 1;
                format!("page {made}")
            });
            assert_eq!(text, format!("page {expected}"), "after {ms} ms");
        }
    }
}
