//! Points in time, as core is told them.

use std::ops::{Add, Sub};
use std::time::Duration;

/// Nanoseconds on the server's monotonic clock, counted from an arbitrary start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nanos(pub u64);

impl Nanos {
    /// Time from `earlier` to `self`; zero where the clock readings are out of order.
    pub fn since(self, earlier: Nanos) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Nanos {
    type Output = Nanos;

    fn add(self, d: Duration) -> Nanos {
        // Saturates after 584 years; a deadline beyond that is no deadline.
        Nanos(
            self.0
                .saturating_add(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

impl Sub<Duration> for Nanos {
    type Output = Nanos;

    fn sub(self, d: Duration) -> Nanos {
        Nanos(
            self.0
                .saturating_sub(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}
