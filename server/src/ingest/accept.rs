//! The listener of either wire: no more connections than allowed, and no end because one failed.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::{debug, warn};

/// Wait after a failed accept: the usual reason is that the process has no descriptor left, and the
/// next attempt would fail at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections up to a bound; the next one waits in the listener's backlog.
pub struct BoundedListener {
    listener: TcpListener,
    open: Arc<Semaphore>,
}

impl BoundedListener {
    /// At most `connections_max` connections at once.
    pub fn new(listener: TcpListener, connections_max: usize) -> BoundedListener {
        let open = Arc::new(Semaphore::new(connections_max.min(Semaphore::MAX_PERMITS)));
        BoundedListener { listener, open }
    }

    /// The next connection, and its place, which is free again when the permit is dropped.
    pub async fn next(&self) -> (TcpStream, OwnedSemaphorePermit) {
        loop {
            let Ok(permit) = Arc::clone(&self.open).acquire_owned().await else {
                // The semaphore lives as long as `self` and is never closed.
                std::future::pending().await
            };
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    // An answer is one write: waiting for more would only delay it.
                    if let Err(error) = stream.set_nodelay(true) {
                        debug!(%error, "the connection keeps Nagle's delay");
                    }
                    return (stream, permit);
                }
                Err(error) if gone(error.kind()) => debug!(%error, "a client left before it was accepted"),
                Err(error) => {
                    warn!(%error, "no connection can be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

fn gone(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::ConnectionRefused
    )
}
