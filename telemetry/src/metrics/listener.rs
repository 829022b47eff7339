//! Metrics of a port: its open connections, their bound, and those that were refused.

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
}

impl ListenerMetrics {
    pub(super) fn new(series: &Series, port: &'static str) -> ListenerMetrics {
        ListenerMetrics {
            open: series.gauge(&names::CONNECTIONS, &[port]),
            open_max: series.gauge(&names::CONNECTIONS_MAX, &[port]),
            refused: series.counter(&names::CONNECTIONS_REFUSED, &[port]),
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
}
