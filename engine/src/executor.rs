//! Stage 5: a thread that owns a model and runs its batches. Where the thread computes itself it runs one after the
//! other; where a device does, the next is prepared and copied while one runs.

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

/// What the executor of one model version needs beside the model.
pub struct Executor {
    /// The model's name, for errors.
    pub name: String,
    /// Which of the model's executors this is, from 0 on.
    pub number: usize,
    /// The token budget of a batch, for the fill ratio.
    pub tokens_max: usize,
    /// The model's metrics.
    pub metrics: Arc<ModelMetrics>,
    /// Where it sits.
    pub seat: DeviceSlot,
    /// The clock.
    pub clock: Clock,
}

/// What an executor shares with the others on its device.
#[derive(Clone)]
pub struct DeviceSlot {
    /// The device's name.
    pub device: String,
    /// Its busy time.
    pub busy: BusyMeter,
    /// Where it is told that the device is lost.
    pub fault: DeviceLost,
}

/// A batch of which the device made something.
struct Done {
    batch: Batch,
    rows: Rescued,
    /// When the device began with it.
    begun: Nanos,
    /// What urgent batches took of the time since then.
    gave: Duration,
    /// Whether it ran at the first attempt and on the whole device, and so says how long such a batch takes.
    clean: bool,
}

impl Executor {
    /// Runs every batch that comes, until the scheduler is gone or the device is lost.
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

    /// The device is lost: who waits for this executor is told, and so is the app.
    fn leave(&self, why: &str, leaving: Leaving, batches: &Receiver<Batch>) {
        let (model, device) = (&self.name, &self.seat.device);
        error!(
            model,
            device,
            error = why,
            "a device is lost: the process drains and ends"
        );
        // From here on batches go to other executors. One may be on its way still: so until the scheduler lets go.
        drop(leaving);
        for batch in batches {
            batch.answer(Err(Rejection::NotReady(why.to_owned())), self.clock.now());
        }
        self.seat.fault.raise(why);
    }

    /// Nobody in the batch is left to run for.
    fn nothing_to_run(&self, batch: &Batch, reports: &Sender<Report>) {
        // An error means that the scheduler is gone.
        let _ = reports.send(Report::Ran(Ran {
            executor: self.number,
            shape: batch.shape(),
            took: None,
            too_large: None,
        }));
    }

    /// What is left to be done with a batch that failed as a whole.
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

    /// Reports a batch and answers it; the error is why the device is lost.
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
        // Reported before the answers go out, so that the next batch is packed meanwhile. An error
        // means that the scheduler is gone; this batch is answered all the same.
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

/// Tells the scheduler that an executor takes no more, however it ends: by a panic too.
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

    /// The same for what the model says of how it shared the device.
    fn shared(self, sharing: Sharing) -> Done {
        Done {
            begun: self.begun + sharing.waited,
            gave: sharing.gave,
            clean: self.clean && !sharing.inside,
            ..self
        }
    }
}
