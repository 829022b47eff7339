//! The stop of all pumps, with its time limit.

use std::sync::OnceLock;
use std::time::Instant;

use crate::time::Time;

/// Set once, seen by every pump within one round.
#[derive(Debug, Default)]
pub struct Stop {
    by: OnceLock<Instant>,
}

impl Stop {
    /// Stops every pump; records in flight have until `by` to finish.
    pub fn say(&self, by: Instant) {
        // The first call counts.
        let _ = self.by.set(by);
    }

    /// Time limit, once the stop is set.
    pub fn by(&self) -> Option<Instant> {
        self.by.get().copied()
    }

    /// Waits until the stop is set, or until `until`.
    pub fn wait(&self, until: Instant, time: &dyn Time) {
        while self.by().is_none() {
            let left = until.saturating_duration_since(time.now());
            if left.is_zero() {
                return;
            }
            time.sleep(left.min(LOOK));
        }
    }
}

/// Longest delay until the stop is seen.
const LOOK: std::time::Duration = std::time::Duration::from_millis(50);
