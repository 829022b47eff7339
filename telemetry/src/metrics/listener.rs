//! Metrics of a port: its connections, those that were refused or cut, and the answers that are not read.

use metrics::{Counter, Gauge};

use super::kafka::Counted;
use super::names;
use super::series::Series;

/// The handles of one port.
#[derive(Clone)]
pub struct ListenerMetrics {
    open: Gauge,
    open_max: Gauge,
    refused: Counter,
    cut: Counter,
}

impl ListenerMetrics {
    pub(super) fn new(series: &Series, port: &'static str) -> ListenerMetrics {
        ListenerMetrics {
            open: series.gauge(&names::CONNECTIONS, &[port]),
            open_max: series.gauge(&names::CONNECTIONS_MAX, &[port]),
            refused: series.counter(&names::CONNECTIONS_REFUSED, &[port]),
            cut: series.counter(&names::CONNECTIONS_CUT, &[port]),
        }
    }

    /// Counts an open connection until the handle is dropped.
    pub fn opened(&self) -> Counted {
        Counted::new(self.open.clone())
    }

    /// Shows the bound of the open connections.
    pub fn connections_max(&self, connections_max: usize) {
        self.open_max.set(connections_max as f64);
    }

    /// Counts a connection of a client that has too many.
    pub fn refused(&self) {
        self.refused.increment(1);
    }

    /// Counts a connection whose client does not read its answers.
    pub fn cut(&self) {
        self.cut.increment(1);
    }
}

/// Shows the bytes of answers that clients have not read.
#[derive(Clone)]
pub struct UnreadBytes {
    bytes: Gauge,
}

impl UnreadBytes {
    pub(super) fn new(series: &Series) -> UnreadBytes {
        UnreadBytes {
            bytes: series.gauge(&names::UNREAD_ANSWERS, &[]),
        }
    }

    /// Adds bytes that were made.
    pub fn add(&self, bytes: usize) {
        self.bytes.increment(bytes as f64);
    }

    /// Removes bytes that were written, or whose connection has ended.
    pub fn remove(&self, bytes: usize) {
        self.bytes.decrement(bytes as f64);
    }
}
