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
    /// Where it sits.
    pub seat: Seat,
    /// The clock.
    pub clock: Clock,
}

/// What an executor shares with the others on its device.
pub struct Seat {
    /// The device's busy time.
    pub busy: BusyMeter,
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
            let whole = self.forward(model.as_mut(), &batch.tokens);
            let failed = whole.is_err();
            let rows = whole.unwrap_or_else(|why| self.halves(model.as_mut(), &batch.tokens, why));
            let finished = self.clock.now();
            let took = finished.since(started);
            let shape = batch.shape();
            // Reported before the answers go out, so that the next batch is packed meanwhile. An error
            // means that the scheduler is gone; this batch is answered all the same.
            let _ = ran.send(Ran {
                shape,
                took: (!failed).then_some(took),
            });
            self.seat.busy.add(took);
            self.metrics
                .batch_done(shape.texts, shape.tokens, self.tokens_max, took);
            batch.answer_rows(rows, finished);
        }
    }

    /// The rows of a batch that failed as a whole: each half runs by itself, and again, until the text that
    /// makes the model fail stands alone. One bad text costs some `2 log n` runs and spoils no neighbour; a
    /// model that fails on everything costs `2 n`.
    fn halves(&self, model: &mut dyn Model, tokens: &PackedTokens, why: Rejection) -> Vec<Outcome> {
        let texts = tokens.sequences();
        if texts < 2 {
            return vec![Err(why); texts];
        }
        let mut rows = Vec::with_capacity(texts);
        for half in [0..texts / 2, texts / 2..texts] {
            let half = tokens.part(half);
            let whole = self.forward(model, &half);
            rows.extend(whole.unwrap_or_else(|why| self.halves(model, &half, why)));
        }
        rows
    }

    /// The rows of a batch, those that are not finite refused one by one: a NaN never spoils its neighbours.
    fn forward(&self, model: &mut dyn Model, tokens: &PackedTokens) -> Result<Vec<Outcome>, Rejection> {
        let texts = tokens.sequences();
        match catch_unwind(AssertUnwindSafe(|| model.forward(tokens))) {
            Ok(Ok(rows)) if rows.len() == texts => {
                Ok(rows.into_iter().map(|reply| self.finite(reply)).collect())
            }
            // Nobody can say whose row is whose.
            Ok(Ok(rows)) => {
                let rows = rows.len();
                error!(
                    model = self.name,
                    rows, texts, "a batch came back with another number of rows"
                );
                Err(Rejection::Model(format!(
                    "model {} answered {rows} rows for {texts} texts",
                    self.name
                )))
            }
            Ok(Err(failed)) => {
                error!(model = self.name, error = %failed, texts, "a batch failed");
                Err(Rejection::Model(format!("model {}: {failed}", self.name)))
            }
            Err(_) => {
                error!(model = self.name, texts, "the model panicked on a batch");
                Err(Rejection::Model(format!(
                    "model {} failed on this text",
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
