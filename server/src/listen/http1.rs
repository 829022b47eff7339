//! HTTP/1.1 on each connection of a listener, within bounds of time and size.

use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Body;
use hyper::server::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tower::Service;

use super::activity::RequestBody;
use super::connection::Connection;
use super::listener::BoundedListener;
use super::serve::{Closing, counted, drive, serve};
use super::stall::Stalling;

/// Bytes of a request's head, and of the buffer for its body.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Bounds of a connection.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionBounds {
    /// Longest time for a request's head, and longest idle time between two requests.
    pub head_timeout: Duration,
    /// Longest time that an answer waits for a client that reads nothing.
    pub stall_timeout: Duration,
    /// Longest silence of a client that a shutdown waits for.
    pub drain_silence_max: Duration,
}

/// Serves connections until `shutdown`, then lets accepted requests finish.
///
/// HTTP/1.1 only: an HTTP/2 client can keep an answer in memory by granting no window, which no timeout of
/// the socket sees. No client of these routes needs HTTP/2.
pub async fn accept<S, B>(
    listener: BoundedListener,
    app: S,
    bounds: ConnectionBounds,
    shutdown: impl Future<Output = ()>,
) where
    S: Service<Request<RequestBody>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let mut builder = http1::Builder::new();
    // Half-closed counts as closed; a disconnected client cannot be distinguished otherwise.
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.head_timeout)
        .max_buf_size(HEAD_BYTES_MAX)
        .half_close(false);
    let handle = |connection: Connection, closing: Closing| {
        let activity = Arc::clone(connection.activity());
        let service = counted(app.clone(), &connection);
        let io = TokioIo::new(Stalling::new(connection, bounds.stall_timeout));
        let connection = builder.serve_connection(io, TowerToHyperService::new(service));
        drive(connection, activity, bounds.drain_silence_max, closing)
    };
    serve(listener, handle, shutdown).await;
}

#[cfg(test)]
mod tests;
