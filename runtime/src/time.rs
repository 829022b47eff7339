//! Time of a pump: the simulation replaces it.

use std::time::{Duration, Instant};

use penstock_core::Nanos;
use penstock_telemetry::clock::Clock;

/// Readings of a clock, and waits.
pub trait Time: Send + Sync {
    /// The present time.
    fn now(&self) -> Instant;

    /// The present time as the service counts it.
    fn nanos(&self) -> Nanos;

    /// Waits.
    fn sleep(&self, time: Duration);
}

impl Time for Clock {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn nanos(&self) -> Nanos {
        Clock::now(*self)
    }

    fn sleep(&self, time: Duration) {
        std::thread::sleep(time);
    }
}
