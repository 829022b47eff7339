//! Tells the pumps to end, and until when.

use std::sync::OnceLock;
use std::time::Instant;

/// Said once, heard by every pump within one turn of its loop.
#[derive(Debug, Default)]
pub struct Stop {
    by: OnceLock<Instant>,
}

impl Stop {
    /// Ends every pump; what is inside has until `by` to leave.
    pub fn say(&self, by: Instant) {
        // Who said it first is right.
        let _ = self.by.set(by);
    }

    /// Until when, once it was said.
    pub fn by(&self) -> Option<Instant> {
        self.by.get().copied()
    }

    /// Waits until it is said or `until` comes.
    pub fn wait(&self, until: Instant) {
        while self.by().is_none() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(LOOK));
        }
    }
}

/// How late it may be heard.
const LOOK: std::time::Duration = std::time::Duration::from_millis(50);
