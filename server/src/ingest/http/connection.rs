//! Accepts connections and keeps each within its bounds: how many, how slow, and until when.

use std::future::Future;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tracing::debug;

use super::stall::Stalling;
use crate::ingest::accept::BoundedListener;

/// A request's head, and the buffer that its body is read through.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// What one connection may take.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Connections open at once; the next one waits in the listener's backlog.
    pub connections_max: usize,
    /// Until a request's head is complete, and how long a connection may be idle between two requests.
    pub head_timeout: Duration,
    /// How long an answer waits for a client that reads nothing.
    pub stall_timeout: Duration,
}

/// Serves connections until `shutdown`, then lets the requests that were read finish.
///
/// HTTP/1.1 alone: an HTTP/2 client can keep an answer in memory by granting no window, which no
/// timeout on the socket sees, and none of the clients of these routes asks for it.
pub async fn accept(listener: TcpListener, app: Router, bounds: Bounds, shutdown: impl Future<Output = ()>) {
    let mut builder = http1::Builder::new();
    // Half-closed counts as closed: that is how a client that left is told from one that waits.
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.head_timeout)
        .max_buf_size(HEAD_BYTES_MAX)
        .half_close(false);
    let doorway = BoundedListener::new(listener, bounds.connections_max);
    let graceful = GracefulShutdown::new();
    tokio::pin!(shutdown);
    loop {
        let (stream, permit) = tokio::select! {
            () = &mut shutdown => break,
            accepted = doorway.next() => accepted,
        };
        let io = TokioIo::new(Stalling::new(stream, bounds.stall_timeout));
        let connection = builder.serve_connection(io, TowerToHyperService::new(app.clone()));
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                debug!(%error, "connection ended early");
            }
            drop(permit);
        });
    }
    drop(doorway);
    graceful.shutdown().await;
}

#[cfg(test)]
mod tests;
