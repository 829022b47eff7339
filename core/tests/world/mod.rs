//! A simulated world around core: arrivals, a clock, executors, and a ledger that checks every step.

mod executor;
mod ledger;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use penstock_core::{
    Admission, AdmissionBounds, BatchPolicy, Batcher, Class, CostModel, Nanos, Poll, Rejection, Request,
    RequestContext, Responder, Source, TokenIds,
};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use executor::Executor;
pub use ledger::Tally;
use ledger::{Ledger, Text};

/// Rate of arrivals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// Less work than the executors can do.
    Light,
    /// More work than they can do, in bursts.
    Heavy,
    /// More interactive texts at every step than a batch holds, and a little bulk work.
    InteractiveFlood,
    /// `InteractiveFlood` with the classes exchanged.
    BulkFlood,
}

/// Kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Faults {
    /// No fault.
    None,
    /// Dropped requests and batches, dying executors, clocks that jump or stand still, models that fail.
    All,
}

/// Steps with arrivals, and the steps after them within which every text must be answered.
const ARRIVALS: usize = 120;
const DRAIN_MAX: usize = 20_000;
const MS: u64 = 1_000_000;

/// State of one run.
pub struct World {
    rng: SmallRng,
    load: Load,
    faults: Faults,
    policy: BatchPolicy,
    admission: Arc<Admission>,
    room_came_back: Arc<AtomicBool>,
    batcher: Batcher,
    /// Tokens of the largest batch that fits the memory of an executor; never less than the longest text.
    memory: usize,
    executors: Vec<Executor>,
    ledger: Arc<Ledger>,
    /// Bulk texts that were refused and wait for room.
    outside: VecDeque<Text>,
    now: Nanos,
    next_row: u32,
    /// Batches in a row that left out a class that was due.
    passed_over: [u32; 2],
}

impl World {
    /// Draws the limits of this run from `seed`.
    pub fn new(seed: u64, load: Load, faults: Faults) -> World {
        let mut rng = SmallRng::seed_from_u64(seed);
        let window = rng.random_range(1..64);
        let tokens_max = window + rng.random_range(0..192);
        let delay = if rng.random() { 0 } else { rng.random_range(1..20) };
        let target = rng
            .random::<bool>()
            .then(|| Duration::from_millis(rng.random_range(5..200)));
        let policy = BatchPolicy::new(
            tokens_max,
            rng.random_range(1..32),
            Duration::from_millis(rng.random_range(0..200)),
            window,
            Duration::from_millis(delay),
            target,
        )
        .unwrap();
        let bounds = AdmissionBounds {
            tokens_max: window + rng.random_range(0..1000),
            bytes_max: 4 * window + rng.random_range(0..4000),
            texts_max: rng.random_range(1..100),
        };
        bounds.check_window(window).unwrap();
        let room_came_back = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&room_came_back);
        let admission = Admission::with_release(bounds, Box::new(move || flag.store(true, SeqCst))).unwrap();
        let memory = match faults {
            Faults::None => usize::MAX,
            Faults::All => rng.random_range(window..2 * tokens_max + 1),
        };
        let executors = (0..rng.random_range(1..3)).map(|_| Executor::default()).collect();
        World {
            batcher: Batcher::new(policy.clone(), CostModel::new(), 1),
            rng,
            load,
            faults,
            policy,
            memory,
            admission,
            room_came_back,
            executors,
            ledger: Arc::new(Ledger::default()),
            outside: VecDeque::new(),
            now: Nanos(1),
            next_row: 0,
            passed_over: [0; 2],
        }
    }

    /// Runs all arrivals, then waits until every text is answered.
    pub fn run(mut self) -> Tally {
        for _ in 0..ARRIVALS {
            self.arrive();
            self.step();
        }
        let mut steps = 0;
        while !(self.outside.is_empty() && self.ledger.all_answered()) {
            self.step();
            steps += 1;
            assert!(steps < DRAIN_MAX, "texts are unanswered after {steps} steps");
        }
        assert!(self.batcher.is_empty());
        self.ledger.check_room(&self.admission);
        for class in Class::ALL {
            assert_eq!(
                (self.admission.depth(class), self.admission.tokens(class)),
                (0, 0)
            );
        }
        self.ledger.tally()
    }

    fn fault(&mut self, probability: f64) -> bool {
        self.faults == Faults::All && self.rng.random_bool(probability)
    }

    fn step(&mut self) {
        self.tick();
        self.retry_outside();
        self.ledger.cancel_some(&mut self.rng, self.load);
        for i in 0..self.executors.len() {
            self.advance(i);
        }
        self.ledger.check_room(&self.admission);
    }

    /// Time advances, stands still, or jumps where the clock was late.
    fn tick(&mut self) {
        let ahead = if self.fault(0.02) {
            self.rng.random_range(0..60_000 * MS)
        } else if self.rng.random_bool(0.2) {
            0
        } else {
            self.rng.random_range(0..10 * MS)
        };
        self.now = self.now + Duration::from_nanos(ahead);
    }

    fn arrive(&mut self) {
        let full = self.policy.requests_max();
        let (interactive, bulk) = match self.load {
            Load::Light => (
                usize::from(self.rng.random_bool(0.5)),
                usize::from(self.rng.random_bool(0.2)),
            ),
            Load::Heavy if self.rng.random_bool(0.1) => (self.rng.random_range(0..40), 20),
            Load::Heavy => (self.rng.random_range(0..4), self.rng.random_range(0..4)),
            Load::InteractiveFlood => (full + 4, usize::from(self.rng.random_bool(0.3))),
            Load::BulkFlood => (usize::from(self.rng.random_bool(0.3)), full + 4),
        };
        for (class, count) in [(Class::Interactive, interactive), (Class::Bulk, bulk)] {
            for _ in 0..count {
                let text = self.text(class);
                self.submit(text);
            }
        }
    }

    fn text(&mut self, class: Class) -> Text {
        let len = self.rng.random_range(1..=self.policy.window());
        let bound = self.rng.random_range(len..=self.policy.window());
        let deadlines = matches!(self.load, Load::Light | Load::Heavy);
        let deadline = (deadlines && self.rng.random_bool(0.4))
            .then(|| self.now + Duration::from_nanos(self.rng.random_range(0..300 * MS)));
        let row = self.next_row;
        self.next_row += 1;
        Text {
            row,
            class,
            len,
            bound,
            bytes: bound * 4,
            received: self.now,
            deadline,
        }
    }

    /// Ingest and tokenizer in one. Without room an interactive text is refused and a bulk text waits.
    fn submit(&mut self, text: Text) {
        let mut permit = match self.admission.admit(text.class, text.bound, text.bytes) {
            Ok(permit) => permit,
            Err(Rejection::Overloaded { .. }) if text.class == Class::Bulk => {
                self.ledger.waits();
                return self.outside.push_back(text);
            }
            Err(why) => {
                assert!(matches!(why, Rejection::Overloaded { .. }));
                return self.ledger.overloaded();
            }
        };
        let sink = self.ledger.admitted(&text);
        let responder = Responder::new(sink, text.row);
        if self.fault(0.01) {
            // A tokenizer thread dies while it holds the text.
            return;
        }
        permit.settle(text.len);
        self.ledger.settled(text.row);
        // The clock reading of another thread may be ahead of the batcher's.
        let tokenized = self.now + Duration::from_nanos(self.rng.random_range(0..MS));
        let request = Request {
            tokens: TokenIds::new(vec![text.row; text.len]).unwrap(),
            context: RequestContext {
                class: text.class,
                ..RequestContext::new(Source::Grpc, text.received)
            }
            .due(text.deadline),
            tokenized,
            permit,
            responder,
        };
        self.ledger.queued(text.class, text.row);
        self.batcher.offer(request);
    }

    /// Tries again only after a release: a permit that does not report its release hangs the run.
    fn retry_outside(&mut self) {
        if self.room_came_back.swap(false, SeqCst) {
            let waiting = self.outside.len();
            for _ in 0..waiting {
                let Some(text) = self.outside.pop_front() else {
                    return;
                };
                let still_outside = self.outside.len();
                self.submit(text);
                if self.outside.len() > still_outside {
                    // The text was refused again and is now last: it gets its first place back.
                    self.outside.rotate_right(1);
                    return;
                }
            }
        }
    }

    /// Polls the next batch for an executor, and checks it.
    fn poll(&mut self) -> Option<penstock_core::Batch> {
        let (now, age) = (self.now, self.policy.bulk_age_max());
        let aged = |received: Nanos| now.since(received) >= age;
        let turn = [
            self.ledger.head(Class::Interactive).is_some(),
            self.ledger.head(Class::Bulk).is_some_and(aged),
        ];
        match self.batcher.poll(self.now) {
            Poll::Run(batch) => {
                assert!(batch.tokens.tokens() <= self.batcher.tokens_max());
                self.ledger.launched(&batch, &self.policy);
                for (class, turn) in Class::ALL.into_iter().zip(turn) {
                    let ran = batch.requests().iter().any(|r| r.context.class == class);
                    let waits = self.ledger.head(class);
                    let still = waits.is_some_and(|received| class == Class::Interactive || aged(received));
                    let missed = turn && still && !ran;
                    let count = &mut self.passed_over[usize::from(class == Class::Bulk)];
                    *count = if missed { *count + 1 } else { 0 };
                    assert!(*count <= 1, "{class:?} work was passed over twice in a row");
                }
                Some(batch)
            }
            Poll::IdleUntil(None) => {
                assert!(self.batcher.is_empty(), "idle forever while work waits");
                None
            }
            Poll::IdleUntil(Some(at)) => {
                assert!(at > self.now, "idle until a time that has passed");
                let delay = self.policy.queue_delay_max();
                let slack = Duration::from_nanos(MS);
                assert!(
                    !delay.is_zero() && at <= self.now + delay + slack,
                    "idle for too long"
                );
                None
            }
        }
    }
}
