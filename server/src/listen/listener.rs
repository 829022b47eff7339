//! The listener of every port: it bounds the connections, and a failed one does not end it.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tracing::{debug, warn};

use super::connection::Connection;

/// Wait after a failed accept. The usual cause is a lack of descriptors, and an immediate attempt would fail
/// too.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections up to a bound; further ones wait in the listener's backlog.
#[derive(Debug)]
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

    /// The next connection.
    pub(super) async fn next(&self) -> Connection {
        loop {
            let Ok(place) = Arc::clone(&self.open).acquire_owned().await else {
                // The semaphore lives as long as `self` and is never closed.
                std::future::pending().await
            };
            match self.listener.accept().await {
                Ok((stream, addr)) => {
                    // An answer is one write, so waiting for more would only delay it.
                    if let Err(error) = stream.set_nodelay(true) {
                        debug!(%error, "the connection keeps Nagle's delay");
                    }
                    return Connection::new(stream, addr, place);
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
