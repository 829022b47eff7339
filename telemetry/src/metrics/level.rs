//! One contribution to a gauge that several share, such as the versions of a model or the consumers of a
//! route.

use std::sync::atomic::{AtomicU64, Ordering};

use metrics::Gauge;

/// A contribution: it adds its change, and removes itself when dropped.
pub(super) struct Level {
    last: AtomicU64,
    gauge: Gauge,
}

impl Level {
    /// A contribution of zero.
    pub(super) fn new(gauge: Gauge) -> Level {
        Level {
            last: AtomicU64::new(0),
            gauge,
        }
    }

    /// Sets the contribution and returns the change.
    pub(super) fn set(&self, level: usize) -> f64 {
        let change = level as f64 - self.last.swap(level as u64, Ordering::Relaxed) as f64;
        self.gauge.increment(change);
        change
    }
}

impl Drop for Level {
    fn drop(&mut self) {
        self.set(0);
    }
}
