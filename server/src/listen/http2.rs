//! HTTP/2 on each connection of a listener, within bounds.
//!
//! hyper is driven here, because tonic's own server lacks three properties. It answers a passed deadline with
//! `CANCELLED`, accepts without a bound, and keeps a silent connection open for ever.

use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Body;
use hyper::server::conn::http2;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::time::timeout;
use tower::Service;
use tracing::debug;

use super::activity::RequestBody;
use super::connection::Connection;
use super::listener::BoundedListener;
use super::serve::{Closing, Watch, counted, drive, serve};
use penstock_core::Rejection;

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

/// Bytes with which a client begins HTTP/2; a SETTINGS frame follows.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes of a frame's header.
const FRAME_HEADER: usize = 9;
/// Longest SETTINGS frame that is waited for here; clients send some 50 bytes.
const SETTINGS_MAX: usize = 1024;

/// Bounds of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Http2Bounds {
    /// Calls at once; a client keeps further ones back.
    pub streams_max: usize,
    /// Longest time for the preface and the first SETTINGS frame.
    pub handshake_timeout: Duration,
    /// Longest silence of a client that a shutdown waits for.
    pub drain_silence_max: Duration,
}

/// Serves connections until `shutdown`, then lets their calls finish. Connections beyond the listener's bound
/// wait in its backlog, and calls beyond `streams_max` in the client.
pub async fn accept<S, B>(
    listener: BoundedListener,
    service: S,
    bounds: Http2Bounds,
    refuse: fn(&Rejection) -> Response<B>,
    shutdown: impl Future<Output = ()>,
) where
    S: Service<Request<RequestBody>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>> + Unpin + Send,
{
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_concurrent_streams(u32::try_from(bounds.streams_max).unwrap_or(u32::MAX))
        .max_header_list_size(HEADERS_MAX)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT);
    let watch = Watch {
        drain_silence_max: bounds.drain_silence_max,
        metrics: listener.metrics().clone(),
    };
    let handle = |mut connection: Connection, mut closing: Closing| {
        let (builder, service, watch) = (builder.clone(), service.clone(), watch.clone());
        async move {
            tokio::select! {
                begun = timeout(bounds.handshake_timeout, connection.look_ahead(has_begun)) => match begun {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => return debug!(%error, "connection ended before it began"),
                    Err(_) => return debug!("a client connected and did not begin HTTP/2 in time"),
                },
                // Nothing was asked yet, so nothing is lost.
                () = closing.begun() => return,
            }
            let activity = Arc::clone(connection.activity());
            let of = (connection.peer().clone(), Arc::clone(&activity));
            let service = TowerToHyperService::new(counted(service, of, |_| None, refuse));
            let connection = builder.serve_connection(TokioIo::new(connection), service);
            drive(connection, activity, watch, closing).await;
        }
    };
    serve(listener, handle, shutdown).await;
}

/// Whether the preface and the first SETTINGS frame are there, or something else that hyper refuses at once.
fn has_begun(bytes: &[u8]) -> bool {
    let common = bytes.len().min(PREFACE.len());
    if bytes[..common] != PREFACE[..common] {
        return true;
    }
    match bytes.get(PREFACE.len()..) {
        Some([high, middle, low, rest @ ..]) if rest.len() + 3 >= FRAME_HEADER => {
            let length = u32::from_be_bytes([0, *high, *middle, *low]) as usize;
            length > SETTINGS_MAX || rest.len() + 3 >= FRAME_HEADER + length
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests;
