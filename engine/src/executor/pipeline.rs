//! Overlap on a GPU: the next batch is packed, copied and started while one runs. The thread waits for the
//! device once a batch, for its rows.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use penstock_core::{Batch, Failure, Nanos, Outcome};
use penstock_models::{Model, ModelError, Pipelined};

use super::{Done, Executor};
use crate::scheduler::Report;

/// Polling interval of the thread while it waits both for rows and for a batch to start. It delays rows by at
/// most this, plus some 50 µs that the system adds to a sleep.
const LOOK: Duration = Duration::from_micros(20);

/// A batch submitted to the device.
struct Flight {
    batch: Batch,
    submitted: Nanos,
}

/// A batch that failed.
struct Failed {
    flight: Flight,
    failure: Failure,
}

impl Failed {
    fn lost(&self) -> Option<String> {
        match &self.failure {
            Failure::Lost(why) => Some(why.clone()),
            Failure::Model(_) | Failure::OutOfMemory(_) => None,
        }
    }
}

struct Pipeline<'a> {
    executor: &'a Executor,
    model: &'a mut dyn Model,
    reports: &'a Sender<Report>,
    /// Batches in flight, oldest first.
    flights: VecDeque<Flight>,
    /// Time at which the device finished the batch before the oldest.
    free: Nanos,
}

/// Runs until the scheduler is gone; the error is the reason why the device is lost.
pub(super) fn run(
    executor: &Executor,
    model: &mut dyn Model,
    batches: &Receiver<Batch>,
    reports: &Sender<Report>,
) -> Result<(), String> {
    let mut pipeline = Pipeline {
        executor,
        model,
        reports,
        flights: VecDeque::new(),
        free: executor.clock.now(),
    };
    loop {
        match pipeline.next(batches) {
            Some(batch) => pipeline.submit(batch)?,
            None if pipeline.flights.is_empty() => return Ok(()),
            None => pipeline.receive()?,
        }
    }
}

impl Pipeline<'_> {
    fn device(&mut self) -> Result<&mut dyn Pipelined, ModelError> {
        let gone = || ModelError::Batch("the model is pipelined no longer".into());
        self.model.pipelined().ok_or_else(gone)
    }

    /// The batch to start now; `None` if the oldest is to be received first, or if no batch will come.
    fn next(&mut self, batches: &Receiver<Batch>) -> Option<Batch> {
        if self.flights.is_empty() {
            return batches.recv().ok();
        }
        let most = self.device().map_or(1, |device| device.in_flight_max());
        if self.flights.len() >= most {
            return None;
        }
        if let Ok(batch) = batches.try_recv() {
            return Some(batch);
        }
        loop {
            if self.device().map_or(true, |device| device.is_ready()) {
                return None;
            }
            match batches.recv_timeout(LOOK) {
                Ok(batch) => return Some(batch),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    fn submit(&mut self, mut batch: Batch) -> Result<(), String> {
        let submitted = self.executor.clock.now();
        // Texts that were cancelled or expired while the batch waited cost no compute.
        if batch.shed(submitted) == 0 {
            self.executor.nothing_to_run(&batch, self.reports);
            return Ok(());
        }
        let outcome = self.guarded(|device| device.submit(&batch.tokens));
        let (texts, tokens) = (batch.len(), batch.tokens.tokens());
        let flight = Flight { batch, submitted };
        let failure = match outcome {
            Ok(Ok(())) => {
                self.flights.push_back(flight);
                return Ok(());
            }
            Ok(Err(failed)) => self.executor.failure(&failed, texts, tokens),
            Err(panicked) => panicked,
        };
        self.recover(Failed { flight, failure })
    }

    /// Waits for the oldest batch and answers it.
    fn receive(&mut self) -> Result<(), String> {
        match self.rows(None) {
            Some((flight, Ok(rows))) => self.finish(flight, rows),
            Some((flight, Err(failure))) => self.recover(Failed { flight, failure }),
            None => Ok(()),
        }
    }

    /// The oldest batch with its rows; a lost device is not asked for them.
    fn rows(&mut self, lost: Option<&str>) -> Option<(Flight, Result<Vec<Outcome>, Failure>)> {
        let flight = self.flights.pop_front()?;
        if let Some(why) = lost {
            return Some((flight, Err(Failure::Lost(why.to_owned()))));
        }
        let rows = self.guarded(|device| device.receive());
        let (texts, tokens) = (flight.batch.len(), flight.batch.tokens.tokens());
        let rows = rows.and_then(|rows| self.executor.checked(rows, texts, tokens));
        Some((flight, rows))
    }

    /// After a panic the next rows cannot be matched to a batch, so the device counts as lost.
    fn guarded<T>(
        &mut self,
        work: impl FnOnce(&mut dyn Pipelined) -> Result<T, ModelError>,
    ) -> Result<Result<T, ModelError>, Failure> {
        let name = &self.executor.name;
        catch_unwind(AssertUnwindSafe(|| work(self.device()?)))
            .map_err(|_| Failure::Lost(format!("model {name} panicked with batches on the device")))
    }

    /// Answers the batches in flight, then retries the failed batches in parts on the free device. A lost
    /// device is not used again.
    fn recover(&mut self, first: Failed) -> Result<(), String> {
        let mut lost = first.lost();
        let mut failed = vec![first];
        while let Some((flight, rows)) = self.rows(lost.as_deref()) {
            match rows {
                Ok(rows) => self.finish(flight, rows)?,
                Err(failure) => {
                    let next = Failed { flight, failure };
                    lost = lost.or(next.lost());
                    failed.push(next);
                }
            }
        }
        for Failed { flight, failure } in failed {
            let failure = lost.clone().map_or(failure, Failure::Lost);
            let Flight { batch, submitted } = flight;
            let begun = submitted.max(self.free);
            let done = self.executor.rescue(self.model, batch, begun, failure);
            match self.executor.finish(done, self.reports) {
                Ok(finished) => self.free = finished,
                Err(why) => lost = lost.or(Some(why)),
            }
        }
        lost.map_or(Ok(()), Err)
    }

    fn finish(&mut self, flight: Flight, rows: Vec<Outcome>) -> Result<(), String> {
        let Flight { batch, submitted } = flight;
        // The batch waited for the one before it; that time is not its own.
        let begun = submitted.max(self.free);
        self.free = self
            .executor
            .finish(Done::clean(batch, rows, begun), self.reports)?;
        Ok(())
    }
}
