//! Chunks that wait to be tried again, each a little longer than the time before.

use std::time::{Duration, Instant};

use penstock_core::Rejection;
use tracing::{error, warn};

use super::work::Chunk;

/// The first wait; each further one is twice as long, up to the last.
const FIRST: Duration = Duration::from_millis(50);
const LAST: Duration = Duration::from_secs(5);

/// After so many attempts the server says that it is not ready: some three seconds.
const ALARM_ATTEMPTS: u32 = 6;

/// Chunks of one pump that could not be scored.
#[derive(Default)]
pub struct Held {
    waiting: Vec<(Instant, Chunk)>,
    alarm: bool,
}

impl Held {
    /// Keeps a chunk until it is its time again.
    pub fn hold(&mut self, mut chunk: Chunk, why: &Rejection, route: &str) {
        let wait = FIRST.saturating_mul(1 << chunk.attempt.min(16)).min(LAST);
        chunk.attempt += 1;
        let fails = matches!(why, Rejection::Model(_) | Rejection::NotFinite { .. });
        if !self.alarm && (fails || chunk.attempt >= ALARM_ATTEMPTS) {
            self.alarm = true;
            let model = &*chunk.wish.model;
            error!(route, model, error = %why, "nothing is scored any more: records are held and tried again");
        }
        self.waiting.push((Instant::now() + wait, chunk));
    }

    /// Something was scored: whatever held the others may be over.
    pub fn succeeded(&mut self, route: &str) {
        if std::mem::take(&mut self.alarm) {
            warn!(route, "records are scored again");
        }
    }

    /// Nothing is left to be tried again: whether those that went can be scored is not ours to say.
    pub fn forget(&mut self) {
        self.clear();
        self.alarm = false;
    }

    /// True when none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Chunks that wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// True while the records that wait are no exception.
    pub fn alarm(&self) -> bool {
        self.alarm
    }

    /// The chunks whose time has come, as soon as there is `room`.
    pub fn due(&mut self, room: impl FnOnce() -> bool) -> Vec<Chunk> {
        if self.waiting.is_empty() || !room() {
            return Vec::new();
        }
        let now = Instant::now();
        let due = self.waiting.extract_if(.., |(at, _)| *at <= now);
        due.map(|(_, chunk)| chunk).collect()
    }

    /// Gives all of them up: their records are read again.
    pub fn clear(&mut self) {
        self.waiting.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use penstock_core::Class;

    use super::*;
    use crate::ingest::kafka::work::Wish;

    #[test]
    fn the_alarm_ends_with_what_it_was_about() {
        let wish = Wish {
            model: Arc::from("m"),
            class: Class::Bulk,
            deadline: None,
        };
        let mut held = Held::default();
        held.hold(Chunk::empty(wish), &Rejection::Model("broken".into()), "r");
        assert!(held.alarm());
        held.clear();
        assert!(held.alarm(), "its records are read again, by us");
        held.forget();
        assert!(!held.alarm() && held.is_empty());
    }
}
