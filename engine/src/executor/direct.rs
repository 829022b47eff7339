//! Batches one after the other, for an executor whose own thread computes.

use crossbeam_channel::{Receiver, Sender};
use penstock_core::Batch;
use penstock_models::Model;

use super::{Done, Executor};
use crate::scheduler::Report;

/// Runs until the scheduler is gone; the error is the reason why the device is lost.
pub(super) fn run(
    executor: &Executor,
    model: &mut dyn Model,
    batches: &Receiver<Batch>,
    reports: &Sender<Report>,
) -> Result<(), String> {
    for mut batch in batches {
        let begun = executor.clock.now();
        // Texts that were cancelled or expired while the batch waited cost no compute.
        if batch.shed(begun) == 0 {
            executor.nothing_to_run(&batch, reports);
            continue;
        }
        // Interactive texts in a batch would wait for later arrivals.
        let may_be_late = batch.is_bulk();
        let rows = executor.attempt(&batch.tokens, |tokens| {
            if may_be_late {
                model.forward_preemptible(tokens)
            } else {
                model.forward(tokens)
            }
        });
        let done = match rows {
            Ok(rows) => Done::clean(batch, rows, begun).shared(model.sharing()),
            Err(failure) => executor.rescue(model, batch, begun, failure),
        };
        executor.finish(done, reports)?;
    }
    Ok(())
}
