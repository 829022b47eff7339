//! The loop of a listener: each connection runs on a task of its own, and a shutdown waits for all of them.

use std::fmt::Display;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::header::{CONNECTION, HeaderName, HeaderValue};
use hyper::{Request, Response};
use hyper_util::server::graceful::GracefulConnection;
use tokio::sync::watch;
use tower::{Service, ServiceExt, service_fn};
use tracing::debug;

use super::activity::{Activity, RequestBody};
use super::answers::CountedAnswer;
use super::connection::{Connection, Peer};
use super::listener::BoundedListener;
use penstock_core::Rejection;
use penstock_telemetry::metrics::ListenerMetrics;

/// Tells a connection's task that its listener has closed. The listener waits until all of these are dropped.
pub(super) struct Closing(watch::Receiver<bool>);

impl Closing {
    /// Resolves once the listener has closed.
    pub async fn begun(&mut self) {
        // An error means that the listener is gone, which closes as well.
        let _ = self.0.wait_for(|closed| *closed).await;
    }
}

/// Runs `handle` for each connection until `shutdown`, then waits for the open ones.
pub(super) async fn serve<H, F>(listener: BoundedListener, handle: H, shutdown: impl Future<Output = ()>)
where
    H: Fn(Connection, Closing) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let closing = watch::Sender::new(false);
    let mut shutdown = pin!(shutdown);
    loop {
        let connection = tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.next() => accepted,
        };
        tokio::spawn(handle(connection, Closing(closing.subscribe())));
    }
    // Closed at once, so that a new client is refused instead of waiting in an unread backlog.
    drop(listener);
    closing.send_replace(true);
    closing.closed().await;
}

/// Name of the header by which a client recognises its answer.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longest request id that is sent back.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// The service of one connection. Its requests carry the peer, its handlers and its answers are counted.
///
/// `refuse` answers instead of the service a request in which `fault` finds one, and every request while the
/// memory of unread answers is full. An answer has the request's id.
pub(super) fn counted<S, B>(
    service: S,
    (peer, activity): (Peer, Arc<Activity>),
    fault: impl Fn(&Request<Incoming>) -> Option<&'static str> + Clone,
    refuse: fn(&Rejection) -> Response<B>,
) -> impl Service<
    Request<Incoming>,
    Response = Response<CountedAnswer<B>>,
    Error = S::Error,
    Future: Send + 'static,
> + Clone
where
    S: Service<Request<RequestBody>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Send,
{
    service_fn(move |request: Request<Incoming>| {
        let (handler, counts) = (activity.handler(), activity.answers().clone());
        let fault = fault(&request).map(|fault| Rejection::Invalid(fault.to_owned()));
        // Bytes after such a request may not be what the client meant as the next one.
        let closes = fault.is_some();
        let id = request.headers().get(REQUEST_ID).cloned();
        let answer = match fault.or_else(|| counts.all.refusal()) {
            Some(refused) => Err(refuse(&refused)),
            None => Ok(service
                .clone()
                .oneshot(RequestBody::of(request, &peer, &activity))),
        };
        async move {
            let answer = match answer {
                Ok(answer) => answer.await?,
                Err(refused) => refused,
            };
            drop(handler);
            let (mut parts, body) = answer.into_parts();
            if let Some(id) = id.filter(|id| id.len() <= REQUEST_ID_BYTES_MAX) {
                parts.headers.insert(REQUEST_ID, id);
            }
            if closes {
                parts
                    .headers
                    .insert(CONNECTION, HeaderValue::from_static("close"));
            }
            let mut body = Some(body);
            let counted = poll_fn(|cx| match body.take() {
                Some(body) => Poll::Ready(CountedAnswer::new(body, counts.clone(), cx)),
                // The first poll is the last.
                None => Poll::Pending,
            });
            Ok(Response::from_parts(parts, counted.await))
        }
    })
}

/// Bounds of every connection of a listener.
#[derive(Clone)]
pub(super) struct Watch {
    /// Longest silence of a client that a shutdown waits for.
    pub drain_silence_max: Duration,
    /// Counts what is cut.
    pub metrics: ListenerMetrics,
}

/// Runs a connection to its end. A client that does not read its answers is cut. Once the listener closes, the
/// connection finishes its requests and takes no more, and a client that is silent then is not waited for.
pub(super) async fn drive<C>(connection: C, activity: Arc<Activity>, watch: Watch, mut closing: Closing)
where
    C: GracefulConnection,
    C::Error: Display,
{
    let mut connection = pin!(connection);
    let cut = || {
        watch.metrics.cut();
        debug!("a client that does not read its answers is cut");
    };
    let mut ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = activity.unread_too_long() => return cut(),
        () = closing.begun() => None,
    };
    if ended.is_none() {
        connection.as_mut().graceful_shutdown();
        ended = tokio::select! {
            ended = connection.as_mut() => Some(ended),
            () = activity.unread_too_long() => return cut(),
            () = activity.abandoned(watch.drain_silence_max) => None,
        };
    }
    match ended {
        Some(Ok(())) => {}
        Some(Err(error)) => debug!(%error, "connection ended early"),
        None => debug!("a silent client is cut by the shutdown"),
    }
}
