//! Stage 5: a thread that owns a model and runs its batches. A thread that computes by itself runs them one
//! after the other. For a GPU, the next batch is prepared and copied while one runs.

mod attempt;
mod direct;
mod pipeline;

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use penstock_core::{Batch, Failure, Nanos, Outcome, Rejection, Rescued, rescue};
use penstock_models::{Model, Sharing};
use tracing::{error, warn};

use crate::device_lost::DeviceLost;
use crate::scheduler::{Ran, Report};
use penstock_telemetry::clock::Clock;
use penstock_telemetry::metrics::{BusyMeter, ModelMetrics};

/// Context of one model version's executor, without the model.
pub struct Executor {
    /// The model's name, for errors.
    pub name: String,
    /// Number of this executor among the model's executors, from 0.
    pub number: usize,
    /// The token budget of a batch, for the fill ratio.
    pub tokens_max: usize,
    /// The model's metrics.
    pub metrics: Arc<ModelMetrics>,
    /// Its place on a device.
    pub seat: DeviceSlot,
    /// The clock.
    pub clock: Clock,
}

/// State shared by the executors of one device.
#[derive(Clone)]
pub struct DeviceSlot {
    /// The device's name.
    pub device: String,
    /// Its busy time.
    pub busy: BusyMeter,
    /// Receiver of the report that the device is lost.
    pub fault: DeviceLost,
}

/// A batch that the device has finished.
struct Done {
    batch: Batch,
    rows: Rescued,
    /// Time at which the device began it.
    begun: Nanos,
    /// Time since then that urgent batches took.
    gave: Duration,
    /// Whether the batch ran at the first attempt and on the whole device, so that its duration is valid for
    /// the cost model.
    clean: bool,
}

impl Executor {
    /// Runs batches until the scheduler is gone or the device is lost.
    pub fn run(&self, mut model: Box<dyn Model>, batches: &Receiver<Batch>, reports: &Sender<Report>) {
        let leaving = Leaving {
            executor: self.number,
            reports,
        };
        if let Err(error) = model.settle() {
            warn!(model = self.name, %error, "the executor stays where the system puts it");
        }
        let lost = if model.pipelined().is_some() {
            pipeline::run(self, model.as_mut(), batches, reports)
        } else {
            direct::run(self, model.as_mut(), batches, reports)
        };
        if let Err(why) = lost {
            self.leave(&why, leaving, batches);
        }
    }

    /// Reports a lost device to the app and answers the batches that wait for this executor.
    fn leave(&self, why: &str, leaving: Leaving, batches: &Receiver<Batch>) {
        let (model, device) = (&self.name, &self.seat.device);
        error!(
            model,
            device,
            error = why,
            "a device is lost: the process drains and ends"
        );
        // New batches now go to other executors. One may still be in the channel, so the loop runs until the
        // scheduler drops its sender.
        drop(leaving);
        for batch in batches {
            batch.answer(Err(Rejection::NotReady(why.to_owned())), self.clock.now());
        }
        self.seat.fault.raise(why);
    }

    /// Reports a batch whose requests have all been cancelled or expired.
    fn nothing_to_run(&self, batch: &Batch, reports: &Sender<Report>) {
        // An error means that the scheduler is gone.
        let _ = reports.send(Report::Ran(Ran {
            executor: self.number,
            shape: batch.shape(),
            took: None,
            too_large: None,
        }));
    }

    /// Tries to answer a batch that failed as a whole.
    fn rescue(&self, model: &mut dyn Model, batch: Batch, begun: Nanos, failure: Failure) -> Done {
        let rows = rescue(&batch.tokens, failure, |part| {
            self.attempt(part, |part| model.forward(part))
        });
        Done {
            batch,
            rows,
            begun,
            gave: Duration::ZERO,
            clean: false,
        }
    }

    /// Reports a batch and answers it; the error is the reason why the device is lost.
    fn finish(&self, done: Done, reports: &Sender<Report>) -> Result<Nanos, String> {
        let Done {
            mut batch,
            rows:
                Rescued {
                    rows,
                    too_large,
                    lost,
                },
            begun,
            gave,
            clean,
        } = done;
        let finished = self.clock.now();
        let took = finished.since(begun).saturating_sub(gave);
        let shape = batch.shape();
        batch.started(begun);
        // Reported before the answers go out, so that the next batch is packed meanwhile. An error means that
        // the scheduler is gone; this batch is still answered.
        let _ = reports.send(Report::Ran(Ran {
            executor: self.number,
            shape,
            took: clean.then_some(took),
            too_large,
        }));
        self.measure(took, shape.texts, shape.tokens);
        batch.answer_rows(rows, finished);
        lost.map_or(Ok(finished), Err)
    }

    fn measure(&self, took: Duration, texts: usize, tokens: usize) {
        self.seat.busy.add(took);
        self.metrics.batch_done(texts, tokens, self.tokens_max, took);
    }
}

/// Tells the scheduler that an executor has ended, even by a panic.
struct Leaving<'a> {
    executor: usize,
    reports: &'a Sender<Report>,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        // An error means that the scheduler is gone.
        let _ = self.reports.send(Report::Gone(self.executor));
    }
}

impl Done {
    /// A batch that ran at the first attempt.
    fn clean(batch: Batch, rows: Vec<Outcome>, begun: Nanos) -> Done {
        let rows = Rescued {
            rows,
            ..Rescued::default()
        };
        Done {
            batch,
            rows,
            begun,
            gave: Duration::ZERO,
            clean: true,
        }
    }

    /// Adds the model's account of how it shared the device.
    fn shared(self, sharing: Sharing) -> Done {
        Done {
            begun: self.begun + sharing.waited,
            gave: sharing.gave,
            clean: self.clean && !sharing.inside,
            ..self
        }
    }
}
