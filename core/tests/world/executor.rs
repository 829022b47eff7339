//! A device that runs one batch and prefetches another, and its faults.

use std::time::Duration;

use penstock_core::{Batch, Failure, Nanos, Outcome, PackedTokens, Reply, Rescued, rescue};
use rand::Rng;

use super::{Faults, World};

#[derive(Default)]
pub struct Executor {
    running: Option<Running>,
    prefetched: Option<Batch>,
    /// Time at which a dead executor is replaced.
    dead_until: Option<Nanos>,
}

struct Running {
    batch: Batch,
    started: Nanos,
    ends: Nanos,
}

impl World {
    /// Finishes a batch that has run, starts one that waits, and asks for the next.
    pub(super) fn advance(&mut self, i: usize) {
        if let Some(until) = self.executors[i].dead_until {
            if self.now < until {
                return;
            }
            self.executors[i].dead_until = None;
        }
        if self.fault(0.01) {
            return self.replace(i);
        }
        if let Some(running) = self.executors[i]
            .running
            .take_if(|running| running.ends <= self.now)
        {
            self.finish(i, running);
            if self.executors[i].dead_until.is_some() {
                return;
            }
        }
        self.start(i);
        if self.executors[i].prefetched.is_none() {
            self.executors[i].prefetched = self.poll();
            self.start(i);
        }
    }

    fn start(&mut self, i: usize) {
        if self.executors[i].running.is_some() {
            return;
        }
        let Some(mut batch) = self.executors[i].prefetched.take() else {
            return;
        };
        let before = batch.len();
        let left = batch.shed(self.now);
        self.ledger.shed(before - left);
        if left == 0 || self.fault(0.02) {
            // Nothing is left to run, or the batch is dropped on the way.
            return;
        }
        self.ledger.started(&batch, self.now);
        batch.started(self.now);
        let shape = batch.shape();
        let nanos = 300_000 + 40_000 * shape.tokens as u64 + 500 * shape.sum_len_sq;
        let noise = self.rng.random_range(0.8..1.3);
        let ends = self.now + Duration::from_nanos((nanos as f64 * noise) as u64);
        self.executors[i].running = Some(Running {
            batch,
            started: self.now,
            ends,
        });
    }

    fn finish(&mut self, i: usize, running: Running) {
        let Running { batch, started, .. } = running;
        let luck = if self.faults == Faults::All {
            self.rng.random_range(0..100)
        } else {
            100
        };
        if (5..8).contains(&luck) {
            return batch.answer(Ok(Vec::new()), self.now);
        }
        let memory = self.memory;
        let fits = |tokens: &PackedTokens| {
            if tokens.tokens() <= memory {
                Ok(rows(tokens))
            } else {
                Err(Failure::OutOfMemory("full".into()))
            }
        };
        let whole = match luck {
            // Another process takes memory for a while.
            0..5 => Err(Failure::OutOfMemory("full for a moment".into())),
            8..11 => Err(Failure::Model("chance".into())),
            11..13 => Err(Failure::Lost("gone".into())),
            _ => fits(&batch.tokens),
        };
        match whole {
            Ok(rows) => {
                self.batcher.observe(batch.shape(), self.now.since(started));
                batch.answer_rows(rows, self.now);
            }
            Err(failure) => {
                let rescued = rescue(&batch.tokens, failure, fits);
                self.rescued(i, &batch, &rescued);
                batch.answer_rows(rescued.rows, self.now);
            }
        }
    }

    /// Applies the result of a failed batch to later ones.
    fn rescued(&mut self, i: usize, batch: &Batch, rescued: &Rescued) {
        if let Some(tokens) = rescued.too_large {
            self.ledger.split();
            let before = self.batcher.tokens_max();
            let lowered = self.batcher.out_of_memory(tokens);
            let after = self.batcher.tokens_max();
            assert_eq!(lowered.is_some(), after < before);
            assert!(after >= self.policy.window(), "the longest text fits no batch");
            assert!(after < tokens || after == self.policy.window());
            // The longest text always has memory here, so lowering a large budget ends in one that fits.
            assert!(tokens <= batch.tokens.tokens());
        }
        if rescued.lost.is_some() {
            self.replace(i);
        }
    }

    /// Drops the executor with its batches; another takes its place after a while.
    fn replace(&mut self, i: usize) {
        let revives = self.now + Duration::from_millis(50);
        self.executors[i] = Executor {
            dead_until: Some(revives),
            ..Executor::default()
        };
    }
}

/// Answers of a model that returns the first token of each text, which is its row.
fn rows(tokens: &PackedTokens) -> Vec<Outcome> {
    let first = |text| Ok(Reply::Embedding(vec![tokens.text(text)[0] as f32]));
    (0..tokens.sequences()).map(first).collect()
}
