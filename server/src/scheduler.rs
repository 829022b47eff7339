//! Stage 4: one thread around [`Batcher`]. It gathers while the device is busy and hands over a batch
//! when the device asks for one. Of several executors the idle come first.

use std::time::Duration;

use crossbeam_channel::{Receiver, SendError, Sender, after, never, select};
use penstock_core::{Batch, BatchShape, Batcher, Lowered, Nanos, Poll, Request, Turns};
use tracing::warn;

use crate::clock::Clock;

/// What an executor reports after each batch: it has room for one more.
#[derive(Clone, Copy, Debug)]
pub struct Ran {
    /// Which of them, by its number.
    pub executor: usize,
    /// What it ran.
    pub shape: BatchShape,
    /// How long the forward pass took; `None` where it failed and says nothing about the cost.
    pub took: Option<Duration>,
    /// Tokens that the device had no memory for, where there were some.
    pub too_large: Option<usize>,
}

/// The scheduler's ends of its channels.
pub struct Wires {
    /// Tokenized requests.
    pub requests: Receiver<Request>,
    /// The executors' reports.
    pub ran: Receiver<Ran>,
    /// To each executor, by its number. They have room for what an executor may hold, so that a send never blocks.
    pub batches: Vec<Sender<Batch>>,
}

/// Runs until the requests' senders are gone and everything they sent is on its way, or until every
/// executor is gone. What is left in the batcher then answers by itself.
///
/// `held_max`: how many batches an executor can hold, the running one included. `idle` is called
/// after each round, to publish the queue's figures.
pub fn run(
    model: &str,
    mut batcher: Batcher,
    wires: Wires,
    held_max: usize,
    clock: Clock,
    mut idle: impl FnMut(),
) {
    let Wires {
        mut requests,
        ran,
        batches,
    } = wires;
    let mut turns = Turns::new(batches.len(), held_max);
    // Packed for an executor that is gone.
    let mut packed = None;
    let mut open = true;
    while open || !batcher.is_empty() || packed.is_some() {
        while let Ok(request) = requests.try_recv() {
            batcher.offer(request);
        }
        let mut wake = None;
        while let Some(executor) = turns.next() {
            let batch = match packed.take() {
                Some(batch) => batch,
                None if batcher.is_empty() => break,
                None => match batcher.poll(clock.now()) {
                    Poll::Run(batch) => batch,
                    Poll::IdleUntil(at) => {
                        wake = at;
                        break;
                    }
                },
            };
            match batches[executor].send(batch) {
                Ok(()) => turns.given(executor),
                Err(SendError(batch)) => {
                    turns.gone(executor);
                    packed = Some(batch);
                }
            }
        }
        if turns.all_gone() {
            return;
        }
        idle();
        if !open && batcher.is_empty() && packed.is_none() {
            return;
        }
        let timer = after(wake.map_or(PUBLISH, |at: Nanos| {
            at.since(clock.now()).clamp(MIN_WAIT, PUBLISH)
        }));
        select! {
            recv(requests) -> request => if let Ok(request) = request {
                batcher.offer(request);
            } else {
                open = false;
                requests = never();
            },
            recv(ran) -> report => match report {
                Ok(Ran { executor, shape, took, too_large }) => {
                    turns.done(executor);
                    if let Some(took) = took {
                        batcher.observe(shape, took);
                    }
                    if let Some(Lowered { from, to }) = too_large.and_then(|n| batcher.out_of_memory(n)) {
                        warn!(model, tokens = too_large, from, to, "no memory for a batch: tokens_max is lowered");
                    }
                }
                Err(_) => return,
            },
            recv(timer) -> _ => {}
        }
    }
}

/// A batch is reported before its answers go out, and these are what leaves the queue's figures: the round
/// after the last batch may come too early to see them gone.
const PUBLISH: Duration = Duration::from_secs(1);

/// A timer in the past still has to fire after some time.
const MIN_WAIT: Duration = Duration::from_micros(10);

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crossbeam_channel::bounded;
    use parking_lot::Mutex;
    use penstock_core::{
        Admission, AdmissionBounds, BatchPolicy, Class, CostModel, Outcome, Rejection, Responder, Sink,
        Stages, TokenIds,
    };

    use super::*;

    #[derive(Default)]
    struct Answers(Mutex<Vec<(u32, Outcome)>>);

    impl Sink for Answers {
        fn answer(&self, row: u32, outcome: Outcome, _: Stages) {
            self.0.lock().push((row, outcome));
        }

        fn is_cancelled(&self) -> bool {
            false
        }
    }

    fn request(admission: &Arc<Admission>, answers: &Arc<Answers>, row: u32) -> Request {
        let sink: Arc<dyn Sink> = Arc::clone(answers) as _;
        Request {
            tokens: TokenIds::new(vec![1, 2]).unwrap(),
            class: Class::Interactive,
            received: Nanos(0),
            tokenized: Nanos(0),
            deadline: None,
            permit: admission.admit(Class::Interactive, 2, 2).unwrap(),
            responder: Responder::new(sink, row),
        }
    }

    fn rig() -> (Batcher, Arc<Admission>, Arc<Answers>) {
        let policy = BatchPolicy::new(8, 4, Duration::from_secs(1), 8, Duration::ZERO, None).unwrap();
        let bounds = AdmissionBounds {
            tokens_max: 64,
            bytes_max: 64,
            texts_max: 64,
        };
        (
            Batcher::new(policy, CostModel::default(), 1),
            Admission::new(bounds).unwrap(),
            Arc::default(),
        )
    }

    #[test]
    fn when_the_executor_is_gone_everything_is_answered_and_the_thread_ends() {
        let (batcher, admission, answers) = rig();
        let (requests, requests_out) = bounded(8);
        let (batches, batches_out) = bounded::<Batch>(1);
        let (ran_in, ran) = bounded(1);
        for row in 0..8 {
            requests.send(request(&admission, &answers, row)).unwrap();
        }
        drop((ran_in, batches_out));
        // Returns although the requests' sender is still there.
        run(
            "model",
            batcher,
            Wires {
                requests: requests_out,
                ran,
                batches: vec![batches],
            },
            1,
            Clock::start(),
            || {},
        );
        let answers = answers.0.lock();
        assert_eq!(answers.len(), 8);
        assert!(
            answers
                .iter()
                .all(|(_, outcome)| *outcome == Err(Rejection::Lost)),
            "{answers:?}"
        );
        assert_eq!(admission.depth(Class::Interactive), 0);
    }

    #[test]
    fn what_was_sent_before_the_senders_went_is_still_run() {
        let (batcher, admission, answers) = rig();
        let (requests, requests_out) = bounded(8);
        let (batches, batches_out) = bounded::<Batch>(1);
        let (report, ran) = bounded(1);
        for row in 0..8 {
            requests.send(request(&admission, &answers, row)).unwrap();
        }
        drop(requests);
        let executor = std::thread::spawn(move || {
            let mut texts = 0;
            for batch in batches_out {
                texts += batch.len();
                let shape = batch.shape();
                batch.answer(Err(Rejection::Cancelled), Nanos(1));
                let report_one = Ran {
                    executor: 0,
                    shape,
                    took: None,
                    too_large: None,
                };
                if report.send(report_one).is_err() {
                    break;
                }
            }
            texts
        });
        run(
            "model",
            batcher,
            Wires {
                requests: requests_out,
                ran,
                batches: vec![batches],
            },
            1,
            Clock::start(),
            || {},
        );
        assert_eq!(executor.join().unwrap(), 8);
        assert_eq!(answers.0.lock().len(), 8);
    }

    #[test]
    fn a_batch_for_an_executor_that_is_gone_goes_to_another() {
        let (batcher, admission, answers) = rig();
        let (requests, requests_out) = bounded(8);
        let (gone, gone_out) = bounded::<Batch>(1);
        let (batches, batches_out) = bounded::<Batch>(1);
        let (report, ran) = bounded(1);
        for row in 0..8 {
            requests.send(request(&admission, &answers, row)).unwrap();
        }
        drop((requests, gone_out));
        let executor = std::thread::spawn(move || {
            for batch in batches_out {
                let shape = batch.shape();
                batch.answer(Err(Rejection::Cancelled), Nanos(1));
                let _ = report.send(Ran {
                    executor: 1,
                    shape,
                    took: None,
                    too_large: Some(shape.tokens),
                });
            }
        });
        let wires = Wires {
            requests: requests_out,
            ran,
            batches: vec![gone, batches],
        };
        run("model", batcher, wires, 1, Clock::start(), || {});
        executor.join().unwrap();
        let answers = answers.0.lock();
        let told = |outcome: &Outcome| *outcome == Err(Rejection::Cancelled);
        assert!(
            answers.len() == 8 && answers.iter().all(|(_, outcome)| told(outcome)),
            "{answers:?}"
        );
    }
}
