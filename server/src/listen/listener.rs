//! The listener of every port: it bounds the connections, and a failed one does not end it.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tracing::{debug, warn};

use super::activity::Activity;
use super::addresses::AddressLimit;
use super::answers::AnswerMemory;
use super::connection::{Connection, Place};
use penstock_telemetry::metrics::ListenerMetrics;

/// Wait after a failed accept. The usual cause is a lack of descriptors, and an immediate attempt would fail
/// too.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections up to a bound; further ones wait in the listener's backlog.
pub struct BoundedListener {
    listener: TcpListener,
    open: Arc<Semaphore>,
    addresses: AddressLimit,
    answers: Arc<AnswerMemory>,
    metrics: ListenerMetrics,
}

impl BoundedListener {
    /// At most `connections_max` connections at once, whose unread answers share `answers`.
    pub fn new(
        listener: TcpListener,
        connections_max: usize,
        answers: Arc<AnswerMemory>,
        metrics: ListenerMetrics,
    ) -> BoundedListener {
        let connections_max = connections_max.min(Semaphore::MAX_PERMITS);
        metrics.connections_max(connections_max);
        BoundedListener {
            listener,
            open: Arc::new(Semaphore::new(connections_max)),
            addresses: AddressLimit::new(usize::MAX),
            answers,
            metrics,
        }
    }

    #[cfg(test)]
    pub(super) fn local_addr(&self) -> std::net::SocketAddr {
        self.listener.local_addr().unwrap()
    }

    pub(super) fn metrics(&self) -> &ListenerMetrics {
        &self.metrics
    }

    /// At most `each_max` connections of one client address; further ones are closed.
    #[must_use]
    pub fn limit_addresses(self, each_max: Option<usize>) -> BoundedListener {
        BoundedListener {
            addresses: AddressLimit::new(each_max.unwrap_or(usize::MAX)),
            ..self
        }
    }

    /// The next connection.
    pub(super) async fn next(&self) -> Connection {
        loop {
            let Ok(permit) = Arc::clone(&self.open).acquire_owned().await else {
                // The semaphore lives as long as `self` and is never closed.
                std::future::pending().await
            };
            match self.listener.accept().await {
                Ok((stream, addr)) => {
                    // An answer is one write, so waiting for more would only delay it.
                    if let Err(error) = stream.set_nodelay(true) {
                        debug!(%error, "the connection keeps Nagle's delay");
                    }
                    let Some(address) = self.addresses.admit(addr.ip()) else {
                        self.metrics.refused();
                        debug!(%addr, "closed: the address has limits.connections_per_address_max connections");
                        continue;
                    };
                    let place = Place::new(permit, address, self.metrics.opened());
                    return Connection::new(stream, addr, place, Activity::new(Arc::clone(&self.answers)));
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

#[cfg(test)]
pub(super) mod testing {
    //! Listeners of tests.

    use penstock_telemetry::clock::Clock;
    use penstock_telemetry::metrics::Metrics;

    use super::*;

    /// A listener with metrics of its own.
    pub fn bounded(listener: TcpListener, connections_max: usize) -> BoundedListener {
        bounded_by(listener, connections_max, 64 << 20)
    }

    /// The same with memory for `answer_bytes_max` of unread answers.
    pub fn bounded_by(
        listener: TcpListener,
        connections_max: usize,
        answer_bytes_max: usize,
    ) -> BoundedListener {
        let metrics = Metrics::new(Clock::start());
        let answers = AnswerMemory::new(answer_bytes_max, metrics.unread_bytes());
        BoundedListener::new(listener, connections_max, answers, metrics.listener("test"))
    }
}
