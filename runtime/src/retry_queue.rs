//! The retry queue: chunks that wait with growing back-off, and the state that they give the route.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use penstock_core::Rejection;
use tracing::{error, warn};

use crate::chunk::Chunk;

/// First wait; each further one doubles, up to the last.
const FIRST: Duration = Duration::from_millis(50);
const LAST: Duration = Duration::from_secs(5);

/// Attempts after which a chunk is stuck: the waits between them sum to one and a half seconds.
const STUCK_ATTEMPTS: u32 = 6;

/// Records count as being scored while a score is this recent. It is longer than the last wait, after which a
/// stuck chunk is tried again.
const RECENT: Duration = Duration::from_secs(10);

/// Identity of a retried chunk.
pub type RetryId = u64;

/// Chunks of one pump that could not be scored.
#[derive(Default)]
pub struct RetryQueue {
    waiting: Vec<(Instant, Chunk)>,
    /// Stuck chunks, running or waiting.
    stuck: BTreeSet<RetryId>,
    /// Next id.
    number: u64,
    /// Time of the last score.
    scored: Option<Instant>,
    /// Time at which a chunk was last queued, or all were dropped.
    changed: Option<Instant>,
    state: State,
}

/// Scoring state of the route. Each change is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    /// Records are scored.
    #[default]
    InferenceResponse,
    /// Some records are stuck, and others were scored recently.
    SomeStuck,
    /// Some records are stuck, and no others are scored.
    NoneScored,
}

impl RetryQueue {
    /// Queues a chunk until its next attempt.
    pub fn hold(&mut self, mut chunk: Chunk, why: &Rejection, now: Instant, route: &str) {
        let wait = FIRST.saturating_mul(1 << chunk.attempt.min(16)).min(LAST);
        chunk.attempt += 1;
        let held = *chunk.held.get_or_insert_with(|| {
            self.number += 1;
            self.number
        });
        let fails = matches!(why, Rejection::Model(_) | Rejection::NotFinite { .. });
        if fails || chunk.attempt >= STUCK_ATTEMPTS {
            self.stuck.insert(held);
        }
        // Another waiting chunk does not improve the state.
        let state = self.found(now).max(self.state);
        if state != self.state {
            let model = &*chunk.wish.model;
            if state == State::NoneScored {
                error!(route, model, error = %why, "nothing is scored any more: records are held and tried again");
            } else {
                error!(route, model, error = %why, "some records are held and tried again; others were scored just now");
            }
        }
        self.state = state;
        self.changed = Some(now);
        self.waiting.push((now + wait, chunk));
    }

    /// Handles a returned chunk in which something was `scored` or not. The chunk with the id `done` leaves
    /// the queue; returns whether it was queued.
    pub fn back(&mut self, done: Option<RetryId>, scored: bool, now: Instant, route: &str) -> bool {
        let freed = done.is_some_and(|held| self.stuck.remove(&held));
        if scored {
            self.scored = Some(now);
        }
        if scored || freed {
            self.think_better(self.found(now), scored, route);
        }
        done.is_some()
    }

    /// Logs recoveries. Deteriorations are logged when a chunk is queued, with the reason.
    fn think_better(&mut self, state: State, scored: bool, route: &str) {
        if state >= self.state {
            return;
        }
        if scored && self.state == State::NoneScored {
            let still_held = self.stuck.len();
            warn!(route, still_held, "records are scored again");
        } else {
            warn!(
                route,
                "none of the records is left that were held and tried again"
            );
        }
        self.state = state;
    }

    fn found(&self, now: Instant) -> State {
        let recent = |scored| now.saturating_duration_since(scored) < RECENT;
        if self.stuck.is_empty() {
            State::InferenceResponse
        } else if self.scored.is_some_and(recent) {
            State::SomeStuck
        } else {
            State::NoneScored
        }
    }

    /// Empties the queue: whether its records can be scored is now another consumer's concern.
    pub fn forget(&mut self, route: &str) {
        self.waiting.clear();
        self.stuck.clear();
        self.think_better(State::InferenceResponse, false, route);
    }

    /// Settles the state after chunks were dropped. They are queued again or scored. If neither happens for a
    /// while and no chunk is `out`, they went elsewhere or became dead letters.
    pub fn settle(&mut self, out: usize, now: Instant, route: &str) {
        let long_ago = |changed| now.saturating_duration_since(changed) >= RECENT;
        if self.waiting.is_empty() && out == 0 && self.changed.is_some_and(long_ago) {
            self.forget(route);
        }
    }

    /// True when no chunk waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Waiting chunks.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// True while nothing is scored. If only some records wait, the route still works.
    pub fn alarm(&self) -> bool {
        self.state == State::NoneScored
    }

    /// The due chunks, as long as there is `room`.
    pub fn due(&mut self, now: Instant, room: impl FnOnce() -> bool) -> Vec<Chunk> {
        if self.waiting.is_empty() || !room() {
            return Vec::new();
        }
        let due = self.waiting.extract_if(.., |(at, _)| *at <= now);
        due.map(|(_, chunk)| chunk).collect()
    }

    /// Drops all chunks: their records are read again, and the state stays until one is scored.
    pub fn clear(&mut self, now: Instant) {
        self.changed = Some(now);
        self.waiting.clear();
        self.stuck.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use penstock_core::Class;

    use super::*;
    use crate::chunk::HeaderOptions;

    fn chunk() -> Chunk {
        Chunk::empty(HeaderOptions {
            model: Arc::from("m"),
            class: Class::Bulk,
            deadline: None,
        })
    }

    fn broken() -> Rejection {
        Rejection::Model("broken".into())
    }

    /// Takes the only waiting chunk, as if it were due.
    fn tried(held: &mut RetryQueue) -> Chunk {
        let (_, chunk) = held.waiting.pop().unwrap();
        assert!(held.waiting.is_empty());
        chunk
    }

    #[test]
    fn the_alarm_ends_with_what_it_was_about() {
        let (mut held, now) = (RetryQueue::default(), Instant::now());
        held.hold(chunk(), &broken(), now, "r");
        assert!(held.alarm());
        held.clear(now);
        assert!(held.alarm(), "its records are read again, by us");
        held.hold(chunk(), &Rejection::NotReady("loading".into()), now, "r");
        assert!(held.alarm(), "they wait again");
        held.forget("r");
        assert!(!held.alarm() && held.is_empty());
    }

    #[test]
    fn chunks_that_stay_beside_others_that_are_scored_are_no_alarm() {
        let (mut held, mut now) = (RetryQueue::default(), Instant::now());
        held.hold(chunk(), &broken(), now, "r");
        assert_eq!(held.state, State::NoneScored, "nothing was ever scored");
        for _ in 0..10 {
            now += LAST;
            held.back(None, true, now, "r");
            assert_eq!(held.state, State::SomeStuck);
            let stuck = tried(&mut held);
            held.hold(stuck, &broken(), now, "r");
            assert_eq!(held.state, State::SomeStuck);
        }
        held.hold(chunk(), &broken(), now, "r");
        assert_eq!(held.state, State::SomeStuck, "one more is no news");
        while let Some((_, chunk)) = held.waiting.pop() {
            assert_eq!(held.state, State::SomeStuck);
            held.back(chunk.held, true, now, "r");
        }
        assert_eq!(held.state, State::InferenceResponse);
    }

    #[test]
    fn what_stays_until_it_has_stopped_all_others_is_an_alarm() {
        let (mut held, mut now) = (RetryQueue::default(), Instant::now());
        held.back(None, true, now, "r");
        held.hold(chunk(), &broken(), now, "r");
        let last = now;
        loop {
            let (at, chunk) = held.waiting.pop().unwrap();
            now = at;
            held.hold(chunk, &broken(), now, "r");
            let still = now < last + RECENT;
            assert_eq!(held.alarm(), !still, "{:?} after the last score", now - last);
            if !still {
                break;
            }
        }
        assert!(now <= last + RECENT + LAST);
    }

    #[test]
    fn what_was_stuck_and_is_gone_unscored_is_no_alarm() {
        let (mut held, now) = (RetryQueue::default(), Instant::now());
        held.hold(chunk(), &broken(), now, "r");
        let chunk = tried(&mut held);
        assert!(held.back(chunk.held, false, now, "r"));
        assert_eq!((held.state, held.scored), (State::InferenceResponse, None));
    }

    #[test]
    fn what_was_given_up_and_never_came_back_is_no_alarm_for_ever() {
        let (mut held, now) = (RetryQueue::default(), Instant::now());
        held.hold(chunk(), &broken(), now, "r");
        held.settle(0, now + 2 * RECENT, "r");
        assert!(held.alarm(), "it waits");
        let begun = now + 2 * RECENT;
        held.clear(begun);
        held.settle(0, begun + RECENT / 2, "r");
        assert!(held.alarm(), "it may not be read yet");
        held.settle(1, begun + RECENT, "r");
        assert!(held.alarm(), "it may be at work");
        held.settle(0, begun + RECENT, "r");
        assert!(!held.alarm());
    }

    #[test]
    fn a_trouble_that_passes_is_none() {
        let (mut held, now) = (RetryQueue::default(), Instant::now());
        let full = Rejection::NotReady("loading".into());
        held.hold(chunk(), &full, now, "r");
        for _ in 2..STUCK_ATTEMPTS {
            let again = tried(&mut held);
            held.hold(again, &full, now, "r");
            assert_eq!(held.state, State::InferenceResponse);
        }
        let again = tried(&mut held);
        held.hold(again, &full, now, "r");
        assert!(held.alarm());
    }
}
