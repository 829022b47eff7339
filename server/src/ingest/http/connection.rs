//! Accepts connections and keeps each within its bounds: number, pace and lifetime.

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

/// Bytes of a request's head, and of the buffer for its body.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Bounds of a connection.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionBounds {
    /// Most open connections; further ones wait in the listener's backlog.
    pub connections_max: usize,
    /// Longest time for a request's head, and longest idle time between two requests.
    pub head_timeout: Duration,
    /// Longest time that an answer waits for a client that reads nothing.
    pub stall_timeout: Duration,
}

/// Serves connections until `shutdown`, then lets accepted requests finish.
///
/// HTTP/1.1 only: an HTTP/2 client can keep an answer in memory by granting no window, which no timeout of
/// the socket sees. No client of these routes needs HTTP/2.
pub async fn accept(
    listener: TcpListener,
    app: Router,
    bounds: ConnectionBounds,
    shutdown: impl Future<Output = ()>,
) {
    let mut builder = http1::Builder::new();
    // Half-closed counts as closed; a disconnected client cannot be distinguished otherwise.
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
