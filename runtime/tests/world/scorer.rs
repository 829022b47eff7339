//! A scorer whose chunks come back in any order, late, in parts, unscored, or not at all.

use std::sync::Arc;
use std::time::Duration;

use penstock_core::Rejection;
use penstock_runtime::chunk::{Answer, Chunk, Fate, Judged};
use penstock_runtime::record::Outgoing;
use penstock_runtime::scoring::{Finished, Scorer};
use penstock_runtime::time::Time;
use rand::Rng;

use super::{OUTPUT, Shared};

pub struct RandomScorer {
    world: Shared,
    time: Arc<dyn Time>,
    /// Chunks with the time at which they come back.
    out: Vec<(u64, Chunk)>,
    /// Chunks that are given up.
    given_up: Vec<Chunk>,
}

impl RandomScorer {
    pub fn new(world: &Shared, time: &Arc<dyn Time>) -> RandomScorer {
        RandomScorer {
            world: world.clone(),
            time: Arc::clone(time),
            out: Vec::new(),
            given_up: Vec::new(),
        }
    }

    fn finish(&mut self, mut chunk: Chunk) -> Finished {
        let mut world = self.world.lock();
        let tried = chunk.held;
        let (mut judged, mut held) = (Vec::new(), Vec::new());
        let mut lost = 0;
        let dies = world.fails(0.005);
        for record in std::mem::take(&mut chunk.records) {
            if dies && world.rng.random_bool(0.5) {
                lost += 1;
            } else if world.fails(0.05) {
                held.push(record);
            } else {
                let answer = Answer {
                    record: Outgoing {
                        topic: OUTPUT.into(),
                        key: record.carried.key,
                        payload: Some(b"score".to_vec()),
                        headers: record.carried.headers,
                        timestamp: None,
                    },
                    fate: Fate::InferenceResponse,
                };
                let mark = record.mark;
                judged.push(Judged { mark, answer });
            }
        }
        chunk.records = held;
        let held = (!chunk.records.is_empty()).then(|| (chunk, Rejection::NotReady("loading".into())));
        Finished {
            judged,
            tried,
            held,
            lost,
        }
    }
}

impl Scorer for RandomScorer {
    fn submit(&mut self, chunk: Chunk) {
        assert_eq!(chunk.records.len(), chunk.texts.len(), "a text for each record");
        let millis = self.world.lock().rng.random_range(0..40);
        let at = self.time.nanos().0 + millis * 1_000_000;
        self.out.push((at, chunk));
    }

    fn out(&self) -> usize {
        self.out.len() + self.given_up.len()
    }

    fn has_room(&self, chunks: usize) -> bool {
        self.out() + chunks <= 2048
    }

    fn give_up(&mut self) {
        self.given_up.extend(self.out.drain(..).map(|(_, chunk)| chunk));
    }

    fn next(&mut self, timeout: Duration) -> Option<Finished> {
        if let Some(chunk) = self.given_up.pop() {
            let tried = chunk.held;
            return Some(Finished {
                judged: Vec::new(),
                tried,
                held: Some((chunk, Rejection::Lost)),
                lost: 0,
            });
        }
        let now = self.time.nanos().0;
        let due = |out: &[(u64, Chunk)], by: u64| out.iter().position(|(at, _)| *at <= by);
        let found = due(&self.out, now).or_else(|| {
            self.time.sleep(timeout);
            due(&self.out, now + timeout.as_nanos() as u64)
        })?;
        let (_, chunk) = self.out.swap_remove(found);
        Some(self.finish(chunk))
    }
}
