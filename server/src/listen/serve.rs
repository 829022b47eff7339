//! The loop of a listener: each connection runs on a task of its own, and a shutdown waits for all of them.

use std::fmt::Display;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper_util::server::graceful::GracefulConnection;
use tokio::sync::watch;
use tower::{Service, ServiceExt};
use tracing::debug;

use super::activity::{Activity, RequestBody};
use super::connection::Connection;
use super::listener::BoundedListener;

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

/// The service of one connection: its requests carry the peer, and its handlers are counted.
pub(super) fn counted<S>(
    service: S,
    connection: &Connection,
) -> impl Service<
    Request<Incoming>,
    Response = S::Response,
    Error = S::Error,
    Future = impl Future<Output = Result<S::Response, S::Error>> + Send + use<S>,
> + Clone
+ use<S>
where
    S: Service<Request<RequestBody>> + Clone,
    S::Future: Send,
{
    let (peer, activity) = (connection.peer().clone(), Arc::clone(connection.activity()));
    let handling = Arc::clone(&activity);
    service
        .map_future(move |answer| {
            let handler = handling.handler();
            async move {
                let answer = answer.await;
                drop(handler);
                answer
            }
        })
        .map_request(move |request| RequestBody::of(request, &peer, &activity))
}

/// Runs a connection to its end. Once the listener closes, it finishes its requests and takes no more; a client
/// that is silent for `silence_max` then is not waited for.
pub(super) async fn drive<C>(
    connection: C,
    activity: Arc<Activity>,
    silence_max: Duration,
    mut closing: Closing,
) where
    C: GracefulConnection,
    C::Error: Display,
{
    let mut connection = pin!(connection);
    let mut ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = closing.begun() => None,
    };
    if ended.is_none() {
        connection.as_mut().graceful_shutdown();
        ended = tokio::select! {
            ended = connection.as_mut() => Some(ended),
            () = activity.abandoned(silence_max) => None,
        };
    }
    match ended {
        Some(Ok(())) => {}
        Some(Err(error)) => debug!(%error, "connection ended early"),
        None => debug!("a silent client is cut by the shutdown"),
    }
}
