//! The loop of a listener: each connection runs on a task of its own, and a shutdown waits for all of them.

use std::fmt::Display;
use std::future::Future;
use std::pin::pin;

use hyper_util::server::graceful::GracefulConnection;
use tokio::sync::watch;
use tracing::debug;

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

/// Runs a connection to its end. Once the listener closes, it finishes its requests and takes no more.
pub(super) async fn drive<C>(connection: C, mut closing: Closing)
where
    C: GracefulConnection,
    C::Error: Display,
{
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = closing.begun() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "connection ended early");
    }
}
