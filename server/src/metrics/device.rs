//! How busy a device is.

use std::sync::Arc;
use std::time::Duration;

use super::window::SlidingBusy;
use crate::clock::Clock;

/// The handle that an executor reports its work to.
#[derive(Clone)]
pub struct BusyMeter {
    clock: Clock,
    busy: Arc<SlidingBusy>,
}

impl BusyMeter {
    pub(super) fn new(clock: Clock) -> BusyMeter {
        BusyMeter {
            clock,
            busy: Arc::default(),
        }
    }

    /// Adds work that has just ended.
    pub fn add(&self, took: Duration) {
        self.busy.add(self.clock.now(), took);
    }

    pub(super) fn ratio(&self) -> f64 {
        self.busy.ratio(self.clock.now())
    }
}
