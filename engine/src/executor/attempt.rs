//! One attempt to run a batch: checked rows, or the reason of the failure.

use std::panic::{AssertUnwindSafe, catch_unwind};

use penstock_core::{Failure, Outcome, PackedTokens, Rejection, Reply};
use penstock_models::{KernelError, ModelError};
use tracing::error;

use super::Executor;

impl Executor {
    /// Runs a batch by `forward`, with no other batch in flight.
    pub(super) fn attempt(
        &self,
        tokens: &PackedTokens,
        forward: impl FnOnce(&PackedTokens) -> Result<Vec<Reply>, ModelError>,
    ) -> Result<Vec<Outcome>, Failure> {
        let texts = tokens.sequences();
        if let Ok(rows) = catch_unwind(AssertUnwindSafe(|| forward(tokens))) {
            return self.checked(rows, texts, tokens.tokens());
        }
        error!(model = self.name, texts, "the model panicked on a batch");
        Err(Failure::Model(format!("model {} failed on this text", self.name)))
    }

    /// Rows of a batch. A row that is not finite is rejected alone, so a NaN never spoils its neighbours.
    pub(super) fn checked(
        &self,
        rows: Result<Vec<Reply>, ModelError>,
        texts: usize,
        tokens: usize,
    ) -> Result<Vec<Outcome>, Failure> {
        match rows {
            Ok(rows) if rows.len() == texts => Ok(rows.into_iter().map(|reply| self.finite(reply)).collect()),
            // With a wrong number of rows, no row can be matched to its text.
            Ok(rows) => {
                let (model, rows) = (&self.name, rows.len());
                error!(
                    model,
                    rows, texts, "a batch came back with another number of rows"
                );
                Err(Failure::Model(format!(
                    "model {model} answered {rows} rows for {texts} texts"
                )))
            }
            Err(failed) => Err(self.failure(&failed, texts, tokens)),
        }
    }

    /// Maps a failed batch of so many texts and tokens to an outcome for its texts.
    pub(super) fn failure(&self, failed: &ModelError, texts: usize, tokens: usize) -> Failure {
        let (model, device) = (&self.name, &self.seat.device);
        error!(model, device, error = %failed, texts, tokens, "a batch failed");
        let why = format!("model {model}: {failed}");
        match failed {
            ModelError::Kernel(KernelError::OutOfMemory { .. }) => Failure::OutOfMemory(why),
            ModelError::Kernel(KernelError::DeviceLost { .. }) => Failure::Lost(why),
            _ => Failure::Model(why),
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
