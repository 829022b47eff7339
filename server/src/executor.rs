//! Stage 5: one thread that owns a model and runs its batches, one after the other.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};
use penstock_core::{Batch, Outcome, PackedTokens, Rejection, Reply};
use penstock_models::Model;
use tracing::error;

use crate::clock::Clock;
use crate::metrics::{BusyMeter, ModelMetrics};
use crate::scheduler::Ran;

/// What the executor of one model version needs beside the model.
pub struct Executor {
    /// The model's name, for errors.
    pub name: String,
    /// The token budget of a batch, for the fill ratio.
    pub tokens_max: usize,
    /// The model's metrics.
    pub metrics: Arc<ModelMetrics>,
    /// The device's busy time.
    pub busy: BusyMeter,
    /// The clock.
    pub clock: Clock,
}

impl Executor {
    /// Runs every batch that comes, until the scheduler is gone.
    pub fn run(&self, mut model: Box<dyn Model>, batches: &Receiver<Batch>, ran: &Sender<Ran>) {
        for mut batch in batches {
            let started = self.clock.now();
            // Who left or ran out of time while the batch waited for the device costs no compute.
            if batch.shed(started) == 0 {
                let _ = ran.send(Ran {
                    shape: batch.shape(),
                    took: None,
                });
                continue;
            }
            batch.started(started);
            let rows = self.forward(model.as_mut(), &batch.tokens);
            let finished = self.clock.now();
            let took = finished.since(started);
            let shape = batch.shape();
            // Reported before the answers go out, so that the next batch is packed meanwhile. An error
            // means that the scheduler is gone; this batch is answered all the same.
            let _ = ran.send(Ran {
                shape,
                took: rows.is_ok().then_some(took),
            });
            self.busy.add(took);
            self.metrics
                .batch_done(shape.texts, shape.tokens, self.tokens_max, took);
            match rows {
                Ok(rows) => batch.answer_rows(rows, finished),
                Err(rejection) => batch.answer(Err(rejection), finished),
            }
        }
    }

    /// The rows of a batch, those that are not finite refused one by one: a NaN never spoils its neighbours.
    fn forward(&self, model: &mut dyn Model, tokens: &PackedTokens) -> Result<Vec<Outcome>, Rejection> {
        match catch_unwind(AssertUnwindSafe(|| model.forward(tokens))) {
            Ok(Ok(rows)) => Ok(rows.into_iter().map(|reply| self.finite(reply)).collect()),
            Ok(Err(failed)) => {
                error!(model = self.name, error = %failed, "a batch failed");
                Err(Rejection::Model(format!("model {}: {failed}", self.name)))
            }
            Err(_) => {
                error!(model = self.name, "the model panicked; its batch was refused");
                Err(Rejection::Model(format!(
                    "model {} failed on this batch",
                    self.name
                )))
            }
        }
    }

    fn finite(&self, reply: Reply) -> Outcome {
        if reply.is_finite() {
            Ok(reply)
        } else {
            Err(Rejection::NotFinite {
                model: self.name.clone(),
            })
        }
    }
}
