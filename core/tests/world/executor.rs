//! A device that runs one batch and holds one more, and what can go wrong with it.

use std::time::Duration;

use penstock_core::{Batch, Nanos, Rejection, Reply};
use rand::Rng;

use super::{Faults, World};

#[derive(Default)]
pub struct Executor {
    running: Option<Running>,
    prefetched: Option<Batch>,
    /// A dead executor is replaced at this time.
    dead_until: Option<Nanos>,
}

struct Running {
    batch: Batch,
    started: Nanos,
    ends: Nanos,
}

impl World {
    /// Ends what has run, starts what waits, asks for more.
    pub(super) fn advance(&mut self, i: usize) {
        if let Some(until) = self.executors[i].dead_until {
            if self.now < until {
                return;
            }
            self.executors[i].dead_until = None;
        }
        if self.fault(0.01) {
            // Its batches go with it.
            let revives = self.now + Duration::from_millis(50);
            self.executors[i] = Executor {
                dead_until: Some(revives),
                ..Executor::default()
            };
            return;
        }
        if let Some(running) = self.executors[i]
            .running
            .take_if(|running| running.ends <= self.now)
        {
            self.finish(running);
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
            // Nothing to run, or a batch is dropped on the way.
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

    fn finish(&mut self, running: Running) {
        let Running { batch, started, .. } = running;
        self.batcher.observe(batch.shape(), self.now.since(started));
        let luck = if self.faults == Faults::All {
            self.rng.random_range(0..100)
        } else {
            100
        };
        match luck {
            0..5 => {
                // Out of memory: the halves run one after the other.
                let (half, rest) = batch.split();
                answer(half, self.now);
                if let Some(rest) = rest {
                    self.ledger.split();
                    answer(rest, self.now);
                }
            }
            5..8 => batch.answer(Ok(Vec::new()), self.now),
            8..11 => batch.answer(Err(Rejection::Model("chance".into())), self.now),
            _ => answer(batch, self.now),
        }
    }
}

/// A model that answers each text with its first token, which is its row.
fn answer(batch: Batch, now: Nanos) {
    let starts = batch.tokens.cu_seqlens.iter().take(batch.len());
    let rows = starts.map(|&at| Reply::Embedding(vec![batch.tokens.ids[at as usize] as f32]));
    let rows = rows.collect();
    batch.answer(Ok(rows), now);
}
