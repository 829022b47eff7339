//! HTTP/1.1 on each connection of a listener, within bounds of time and size.

use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tower::Service;

use super::activity::RequestBody;
use super::connection::Connection;
use super::heads;
use super::listener::BoundedListener;
use super::serve::{Closing, Watch, counted, drive, serve};
use super::stall::Stalling;
use penstock_core::Rejection;

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
    refuse: fn(&Rejection) -> Response<B>,
    shutdown: impl Future<Output = ()>,
) where
    S: Service<Request<RequestBody>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>> + Unpin + Send,
{
    let mut builder = http1::Builder::new();
    // Half-closed counts as closed; a disconnected client cannot be distinguished otherwise.
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.head_timeout)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_header_size(HEAD_BYTES_MAX)
        .half_close(false);
    let watch = Watch {
        drain_silence_max: bounds.drain_silence_max,
        metrics: listener.metrics().clone(),
    };
    let handle = |mut connection: Connection, closing: Closing| {
        let body = connection.scan_heads();
        let fault = move |request: &Request<Incoming>| {
            body.follows(request);
            heads::fault(request)
        };
        let activity = Arc::clone(connection.activity());
        let of = (connection.peer().clone(), Arc::clone(&activity));
        let service = counted(app.clone(), of, fault, refuse);
        let io = TokioIo::new(Stalling::new(connection, bounds.stall_timeout));
        let connection = builder.serve_connection(io, TowerToHyperService::new(service));
        drive(connection, activity, watch.clone(), closing)
    };
    serve(listener, handle, shutdown).await;
}

#[cfg(test)]
mod tests;
