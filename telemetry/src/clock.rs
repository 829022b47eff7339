//! The one clock: every stage reads it, and `core` is given its readings.

use std::time::Instant;

use penstock_core::Nanos;

/// A monotonic clock that counts from the start of the process.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    /// A clock that starts at zero now.
    pub fn start() -> Clock {
        Clock {
            origin: Instant::now(),
        }
    }

    /// The time since the start.
    pub fn now(self) -> Nanos {
        // 2^64 ns are 584 years.
        Nanos(u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}
