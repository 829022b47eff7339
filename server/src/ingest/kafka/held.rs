//! Chunks that wait to be tried again, each a little longer than the time before, and what that says of the route.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use penstock_core::Rejection;
use tracing::{error, warn};

use super::work::Chunk;

/// The first wait; each further one is twice as long, up to the last.
const FIRST: Duration = Duration::from_millis(50);
const LAST: Duration = Duration::from_secs(5);

/// After so many attempts a chunk is stuck: some three seconds.
const STUCK_ATTEMPTS: u32 = 6;

/// Which chunk: when it was held first, and a number.
pub type HeldAs = (Instant, u64);

/// Chunks of one pump that could not be scored.
#[derive(Default)]
pub struct Held {
    waiting: Vec<(Instant, Chunk)>,
    /// Those that are no passing trouble, at work or waiting.
    stuck: BTreeSet<HeldAs>,
    /// Of the next one.
    number: u64,
    /// When something was scored last.
    scored: Option<Instant>,
    state: State,
}

/// How records fare. Each change of it is a line in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    /// They are scored.
    #[default]
    Scored,
    /// Some are stuck, and what came after them is scored.
    SomeStuck,
    /// Nothing was scored since the newest of them was tried first.
    NoneScored,
}

impl Held {
    /// Keeps a chunk until it is its time again.
    pub fn hold(&mut self, mut chunk: Chunk, why: &Rejection, route: &str) {
        let now = Instant::now();
        let wait = FIRST.saturating_mul(1 << chunk.attempt.min(16)).min(LAST);
        chunk.attempt += 1;
        let held = *chunk.held.get_or_insert_with(|| {
            self.number += 1;
            (now, self.number)
        });
        let fails = matches!(why, Rejection::Model(_) | Rejection::NotFinite { .. });
        if fails || chunk.attempt >= STUCK_ATTEMPTS {
            self.stuck.insert(held);
        }
        // Another that waits is no reason to think better of it.
        let state = self.found().max(self.state);
        if state != self.state {
            let model = &*chunk.wish.model;
            if state == State::NoneScored {
                error!(route, model, error = %why, "nothing is scored any more: records are held and tried again");
            } else {
                error!(route, model, error = %why, "some records are held and tried again while others are scored");
            }
        }
        self.state = state;
        self.waiting.push((now + wait, chunk));
    }

    /// Something was scored.
    pub fn succeeded(&mut self, route: &str) {
        self.scored = Some(Instant::now());
        self.look(route);
    }

    /// A chunk is no longer held, whatever became of it. True where it was.
    pub fn done(&mut self, held: Option<HeldAs>, route: &str) -> bool {
        if held.is_some_and(|held| self.stuck.remove(&held)) {
            self.look(route);
        }
        held.is_some()
    }

    fn look(&mut self, route: &str) {
        let state = self.found();
        if state != self.state {
            let still_held = self.stuck.len();
            warn!(route, still_held, "records are scored again");
        }
        self.state = state;
    }

    fn found(&self) -> State {
        match self.stuck.last() {
            None => State::Scored,
            Some((since, _)) if self.scored.is_some_and(|scored| scored > *since) => State::SomeStuck,
            Some(_) => State::NoneScored,
        }
    }

    /// Nothing is left to be tried again: whether those that went can be scored is not ours to say.
    pub fn forget(&mut self) {
        self.clear();
        self.state = State::Scored;
    }

    /// True when none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Chunks that wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// True while nothing is scored. Where only some records wait the server does its work.
    pub fn alarm(&self) -> bool {
        self.state == State::NoneScored
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

    /// Gives all of them up: their records are read again, and fare no better until one is scored.
    pub fn clear(&mut self) {
        self.waiting.clear();
        self.stuck.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use penstock_core::Class;

    use super::*;
    use crate::ingest::kafka::work::Wish;

    fn chunk() -> Chunk {
        Chunk::empty(Wish {
            model: Arc::from("m"),
            class: Class::Bulk,
            deadline: None,
        })
    }

    fn broken() -> Rejection {
        Rejection::Model("broken".into())
    }

    /// Takes the only chunk that waits, as if its time had come.
    fn tried(held: &mut Held) -> Chunk {
        let (_, chunk) = held.waiting.pop().unwrap();
        assert!(held.waiting.is_empty());
        chunk
    }

    #[test]
    fn the_alarm_ends_with_what_it_was_about() {
        let mut held = Held::default();
        held.hold(chunk(), &broken(), "r");
        assert!(held.alarm());
        held.clear();
        assert!(held.alarm(), "its records are read again, by us");
        held.hold(chunk(), &Rejection::NotReady("loading".into()), "r");
        assert!(held.alarm(), "they wait again");
        held.forget();
        assert!(!held.alarm() && held.is_empty());
    }

    #[test]
    fn one_chunk_that_stays_beside_others_that_are_scored_is_no_alarm_again_and_again() {
        let mut held = Held::default();
        held.hold(chunk(), &broken(), "r");
        assert_eq!(held.state, State::NoneScored);
        for _ in 0..10 {
            held.succeeded("r");
            assert_eq!(held.state, State::SomeStuck);
            let stuck = tried(&mut held);
            held.hold(stuck, &broken(), "r");
            assert_eq!(held.state, State::SomeStuck);
        }
        // What came after it fails as well now.
        held.hold(chunk(), &broken(), "r");
        assert!(held.alarm());
        held.succeeded("r");
        while let Some((_, chunk)) = held.waiting.pop() {
            assert_eq!(held.state, State::SomeStuck);
            held.done(chunk.held, "r");
        }
        assert_eq!(held.state, State::Scored);
    }

    #[test]
    fn a_trouble_that_passes_is_none() {
        let mut held = Held::default();
        let full = Rejection::NotReady("loading".into());
        held.hold(chunk(), &full, "r");
        for _ in 2..STUCK_ATTEMPTS {
            let again = tried(&mut held);
            held.hold(again, &full, "r");
            assert_eq!(held.state, State::Scored);
        }
        let again = tried(&mut held);
        held.hold(again, &full, "r");
        assert!(held.alarm());
    }
}
