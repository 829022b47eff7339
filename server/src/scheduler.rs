//! Stage 4: one thread around [`Batcher`]. It gathers while the device is busy and hands over a batch
//! when the device asks for one. Of several executors the idle come first.

use std::time::Duration;

use crossbeam_channel::{Receiver, SendError, Sender, after, never, select};
use penstock_core::{Batch, BatchShape, Batcher, Lowered, Nanos, Poll, Request, Turns};
use tracing::warn;

use crate::clock::Clock;

/// What an executor reports.
#[derive(Clone, Copy, Debug)]
pub enum Report {
    /// A batch is done: there is room for one more.
    Ran(Ran),
    /// The executor with this number takes no more.
    Gone(usize),
}

/// A batch that is done.
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
    pub reports: Receiver<Report>,
    /// To each executor, by its number. They have room for what an executor may hold, so that a send never blocks.
    pub batches: Vec<Sender<Batch>>,
}

/// Runs until the requests' senders are gone and everything they sent is on its way, or until every
/// executor is gone. What is left in the batcher then answers by itself. What is left in the queue does not, and
/// more may come as long as it has senders: so the queue is handed back.
///
/// `held_max`: how many batches an executor can hold, the running one included. `idle` is called
/// after each round with the token budget of a batch, to publish the queue's figures.
pub fn run(
    model: &str,
    mut batcher: Batcher,
    wires: Wires,
    held_max: usize,
    clock: Clock,
    mut idle: impl FnMut(usize),
) -> Receiver<Request> {
    let Wires {
        mut requests,
        reports,
        batches,
    } = wires;
    let queue = requests.clone();
    let mut executors = Executors::new(batches, held_max);
    // Packed for an executor that is gone.
    let mut packed = None;
    let mut open = true;
    while open || !batcher.is_empty() || packed.is_some() {
        while let Ok(request) = requests.try_recv() {
            batcher.offer(request);
        }
        let mut wake = None;
        while let Some(executor) = executors.turns.next() {
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
            packed = executors.give(executor, batch);
        }
        if executors.turns.all_gone() {
            break;
        }
        idle(batcher.tokens_max());
        if !open && batcher.is_empty() && packed.is_none() {
            break;
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
            recv(reports) -> report => match report {
                Ok(Report::Ran(Ran { executor, shape, took, too_large })) => {
                    executors.turns.done(executor);
                    if let Some(took) = took {
                        batcher.observe(shape, took);
                    }
                    if let Some(Lowered { from, to }) = too_large.and_then(|n| batcher.out_of_memory(n)) {
                        warn!(model, tokens = too_large, from, to, "no memory for a batch: tokens_max is lowered");
                    }
                }
                Ok(Report::Gone(executor)) => executors.gone(executor),
                Err(_) => break,
            },
            recv(timer) -> _ => {}
        }
    }
    queue
}

/// Who runs batches, and whose turn it is.
struct Executors {
    to: Vec<Option<Sender<Batch>>>,
    turns: Turns,
}

impl Executors {
    fn new(to: Vec<Sender<Batch>>, held_max: usize) -> Executors {
        Executors {
            turns: Turns::new(to.len(), held_max),
            to: to.into_iter().map(Some).collect(),
        }
    }

    /// Hands a batch over; one whose executor is gone comes back.
    fn give(&mut self, executor: usize, batch: Batch) -> Option<Batch> {
        let sent = match &self.to[executor] {
            Some(to) => to.send(batch),
            None => Err(SendError(batch)),
        };
        match sent {
            Ok(()) => {
                self.turns.given(executor);
                None
            }
            Err(SendError(batch)) => {
                self.gone(executor);
                Some(batch)
            }
        }
    }

    /// Lets go of the channel, and with it of the batches that nobody took out.
    fn gone(&mut self, executor: usize) {
        self.turns.gone(executor);
        self.to[executor] = None;
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
        let _ = run(
            "model",
            batcher,
            Wires {
                requests: requests_out,
                reports: ran,
                batches: vec![batches],
            },
            1,
            Clock::start(),
            |_| {},
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
                if report.send(Report::Ran(report_one)).is_err() {
                    break;
                }
            }
            texts
        });
        let _ = run(
            "model",
            batcher,
            Wires {
                requests: requests_out,
                reports: ran,
                batches: vec![batches],
            },
            1,
            Clock::start(),
            |_| {},
        );
        assert_eq!(executor.join().unwrap(), 8);
        assert_eq!(answers.0.lock().len(), 8);
    }

    #[test]
    fn a_batch_that_an_executor_left_behind_is_answered_while_others_go_on() {
        let (batcher, admission, answers) = rig();
        let (requests, requests_out) = bounded(8);
        let (gone, gone_out) = bounded::<Batch>(1);
        let (other, _other_out) = bounded::<Batch>(1);
        let (report, reports) = bounded(2);
        for row in 0..4 {
            requests.send(request(&admission, &answers, row)).unwrap();
        }
        let wires = Wires {
            requests: requests_out,
            reports,
            batches: vec![gone, other],
        };
        let scheduler =
            std::thread::spawn(move || drop(run("model", batcher, wires, 1, Clock::start(), |_| {})));
        // It has a batch, which nobody will take out.
        while gone_out.is_empty() {
            std::thread::yield_now();
        }
        drop(gone_out);
        report.send(Report::Gone(0)).unwrap();
        while answers.0.lock().is_empty() {
            std::thread::yield_now();
        }
        assert!(
            answers
                .0
                .lock()
                .iter()
                .all(|(_, outcome)| *outcome == Err(Rejection::Lost))
        );
        drop((requests, report));
        scheduler.join().unwrap();
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
                let _ = report.send(Report::Ran(Ran {
                    executor: 1,
                    shape,
                    took: None,
                    too_large: Some(shape.tokens),
                }));
            }
        });
        let wires = Wires {
            requests: requests_out,
            reports: ran,
            batches: vec![gone, batches],
        };
        let _ = run("model", batcher, wires, 1, Clock::start(), |_| {});
        executor.join().unwrap();
        let answers = answers.0.lock();
        let told = |outcome: &Outcome| *outcome == Err(Rejection::Cancelled);
        assert!(
            answers.len() == 8 && answers.iter().all(|(_, outcome)| told(outcome)),
            "{answers:?}"
        );
    }
}
