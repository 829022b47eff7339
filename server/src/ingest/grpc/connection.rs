//! Accepts connections and speaks HTTP/2 on each, within bounds.
//!
//! hyper is driven here, because tonic's own server lacks three properties. It answers a passed deadline with
//! `CANCELLED`, accepts without a bound, and keeps a silent connection open for ever.

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

/// Bytes that a client may send ahead on one call: a megabyte keeps a fast network busy over a millisecond's round trip.
const STREAM_WINDOW: u32 = 1 << 20;
/// Bytes that a client may send ahead on all calls of a connection. It also sets h2's budget for small DATA frames:
/// each that waits unread takes up to 256 bytes of half this window, and h2 closes the connection beyond it. A stream
/// that the server reads no further leaves a whole window unread, so that many small messages must fit the budget.
const CONNECTION_WINDOW: u32 = 24 << 20;
/// Bytes of a message of `penstock.v1` with a text of a word and an id, with its frame.
const SMALL_MESSAGE: u32 = 24;
const _: () = assert!(
    STREAM_WINDOW / SMALL_MESSAGE * (256 - SMALL_MESSAGE) < CONNECTION_WINDOW / 2,
    "a stalled stream of small messages ends its connection"
);

/// Bytes of one call's answers that are buffered for a slow client.
const SEND_BUFFER: usize = 256 * 1024;

/// Bytes of one call's metadata.
const HEADERS_MAX: u32 = 16 * 1024;

/// Interval and timeout of pings; together they bound the detection of a dead link.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Longest wait for a new connection's first byte.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Serves connections until `shutdown`, then lets their calls finish. Connections beyond `connections_max`
/// wait in the listener's backlog, and calls beyond `streams_max` in the client.
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
    // Ends the wait for silent clients, which must not delay the shutdown.
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
    // Closed at once, so that a new client is refused instead of waiting in an unread backlog.
    drop(doorway);
    drop(closing);
    graceful.shutdown().await;
}
