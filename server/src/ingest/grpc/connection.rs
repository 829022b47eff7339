//! Accepts connections and speaks HTTP/2 on each, within bounds.
//!
//! hyper is driven here, not by tonic's own server: that one answers a deadline that passed with
//! `CANCELLED`, accepts without a bound, and lets a client hold a connection that never says anything.

use std::future::Future;
use std::time::Duration;

use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::sleep;
use tonic::service::Routes;
use tower::ServiceExt;
use tracing::debug;

use super::inbound::Receiver;
use crate::ingest::accept::BoundedListener;
use penstock_engine::settings::Limits;

/// Bytes that a client may send ahead on one call. A stream whose server reads no further leaves this much unread,
/// and h2 closes connections on which too many small frames wait: it takes 256 bytes for each smaller frame from a
/// budget of half the connection's window. So the two windows stand far apart, and one stream of messages of a
/// dozen bytes stays within the budget.
const STREAM_WINDOW: u32 = 64 << 10;
/// Bytes that a client may send ahead on all calls of a connection.
const CONNECTION_WINDOW: u32 = 4 << 20;
const _: () = assert!(
    STREAM_WINDOW / 13 * 256 < CONNECTION_WINDOW / 2,
    "unread small messages end a connection"
);

/// How much of one call's answers may lie ready for a client that does not take them.
const SEND_BUFFER: usize = 256 * 1024;

/// Metadata of one call.
const HEADERS_MAX: u32 = 16 * 1024;

/// A client behind a dead link is noticed after the two together.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Until a new connection's first byte.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Serves connections until `shutdown`, then lets their calls finish. More than `connections_max` wait in
/// the listener's backlog, and more calls on one connection than `streams_max` in the client.
pub async fn accept(
    listener: TcpListener,
    routes: Routes,
    limits: &Limits,
    shutdown: impl Future<Output = ()>,
) {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_concurrent_streams(u32::try_from(limits.streams_max).unwrap_or(u32::MAX))
        .max_header_list_size(HEADERS_MAX)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT);
    let doorway = BoundedListener::new(listener, limits.connections_max);
    let receiver = Receiver::new(limits);
    let graceful = GracefulShutdown::new();
    // Ends the wait for clients that have said nothing: they must not hold the shutdown.
    let (closing, _) = watch::channel(());
    tokio::pin!(shutdown);
    loop {
        let (stream, permit) = tokio::select! {
            () = &mut shutdown => break,
            accepted = doorway.next() => accepted,
        };
        let (builder, routes, watcher) = (builder.clone(), routes.clone(), graceful.watcher());
        let (receiver, mut closed) = (receiver.clone(), closing.subscribe());
        tokio::spawn(async move {
            tokio::select! {
                _ = stream.readable() => {}
                _ = closed.changed() => return,
                () = sleep(SILENCE_MAX) => return debug!("a client connected and said nothing"),
            }
            let receive = move |request| receiver.receive(request);
            let service = TowerToHyperService::new(routes.map_request(receive));
            let connection = watcher.watch(builder.serve_connection(TokioIo::new(stream), service));
            if let Err(error) = connection.await {
                debug!(%error, "connection ended early");
            }
            drop(permit);
        });
    }
    // Closed at once: whoever connects now is told so, and does not wait in a backlog nobody reads.
    drop(doorway);
    drop(closing);
    graceful.shutdown().await;
}
