//! One batch after the other, where the executor's thread computes itself.

use crossbeam_channel::{Receiver, Sender};
use penstock_core::Batch;
use penstock_models::Model;

use super::{Done, Executor};
use crate::scheduler::Report;

/// Until the scheduler is gone; the error is why the device is lost.
pub(super) fn run(
    executor: &Executor,
    model: &mut dyn Model,
    batches: &Receiver<Batch>,
    reports: &Sender<Report>,
) -> Result<(), String> {
    for mut batch in batches {
        let begun = executor.clock.now();
        // Who left or ran out of time while the batch waited for the device costs no compute.
        if batch.shed(begun) == 0 {
            executor.nothing_to_run(&batch, reports);
            continue;
        }
        let done = match executor.forward(model, &batch.tokens) {
            Ok(rows) => Done::clean(batch, rows, begun),
            Err(failure) => executor.rescue(model, batch, begun, failure),
        };
        executor.finish(done, reports)?;
    }
    Ok(())
}
