//! A record of events beside the code under test, for comparison.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use penstock_core::{Admission, Batch, BatchPolicy, Class, Nanos, Outcome, Rejection, Reply, Sink, Stages};
use rand::Rng;
use rand::rngs::SmallRng;

use super::Load;

/// One text as it arrived.
#[derive(Clone, Debug)]
pub struct Text {
    pub row: u32,
    pub class: Class,
    pub len: usize,
    pub bound: usize,
    pub bytes: usize,
    pub received: Nanos,
    pub deadline: Option<Nanos>,
}

/// Counts of events.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub answered: usize,
    pub lost: usize,
    pub late: usize,
    pub cancelled: usize,
    pub overloaded: usize,
    pub waited: usize,
    pub miscounted: usize,
    pub split: usize,
    pub unavailable: usize,
    pub shed: usize,
    pub interactive_ran: usize,
    pub bulk_ran: usize,
}

impl Tally {
    pub fn add(&mut self, other: &Tally) {
        self.answered += other.answered;
        self.lost += other.lost;
        self.late += other.late;
        self.cancelled += other.cancelled;
        self.overloaded += other.overloaded;
        self.waited += other.waited;
        self.miscounted += other.miscounted;
        self.split += other.split;
        self.unavailable += other.unavailable;
        self.shed += other.shed;
        self.interactive_ran += other.interactive_ran;
        self.bulk_ran += other.bulk_ran;
    }
}

#[derive(Default)]
struct Books {
    /// Texts that are admitted and not answered.
    open: BTreeMap<u32, Open>,
    answered: BTreeSet<u32>,
    /// Rows in the batcher, in the order in which each class arrived there.
    queues: [VecDeque<u32>; 2],
    tally: Tally,
}

struct Open {
    text: Text,
    settled: bool,
    queued: bool,
    cancelled: bool,
}

/// Receiver of all rows.
#[derive(Default)]
pub struct Ledger {
    books: Mutex<Books>,
}

/// Sink of one row, so that single texts can be cancelled.
struct Row {
    ledger: Arc<Ledger>,
    row: u32,
}

impl Sink for Row {
    fn answer(&self, row: u32, outcome: Outcome, stages: Stages) {
        if std::thread::panicking() {
            // A check has failed and the world is being dropped: a second panic would hide the first.
            return;
        }
        assert_eq!(row, self.row);
        let mut books = self.ledger.books();
        let Some(open) = books.open.remove(&row) else {
            panic!("row {row} was answered twice, or never admitted");
        };
        let tally = &mut books.tally;
        match &outcome {
            Ok(Reply::Embedding(values)) => {
                assert_eq!(values, &[row as f32], "row {row} got another row's answer");
                tally.answered += 1;
            }
            Ok(other) => panic!("row {row} got {other:?}"),
            Err(Rejection::Lost) => tally.lost += 1,
            Err(Rejection::Cancelled) => {
                assert!(open.cancelled, "row {row} was not cancelled");
                tally.cancelled += 1;
            }
            Err(Rejection::DeadlineExceeded(_)) => {
                assert!(open.text.deadline.is_some(), "row {row} had no deadline");
                tally.late += 1;
            }
            Err(Rejection::Model(_)) => tally.miscounted += 1,
            Err(Rejection::NotReady(_) | Rejection::NoMemory(_)) => tally.unavailable += 1,
            Err(why) => panic!("row {row}: {why}"),
        }
        if outcome.is_ok() || matches!(outcome, Err(Rejection::Model(_))) {
            let total = stages.finished.since(open.text.received);
            assert_eq!(
                stages.tokenize + stages.queue + stages.execute,
                total,
                "stages of row {row}"
            );
        }
        if open.queued {
            books.queues[index(open.text.class)].retain(|&queued| queued != row);
        }
        books.answered.insert(row);
    }

    fn is_cancelled(&self) -> bool {
        self.ledger
            .books()
            .open
            .get(&self.row)
            .is_some_and(|open| open.cancelled)
    }
}

impl Ledger {
    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn admitted(self: &Arc<Self>, text: &Text) -> Arc<dyn Sink> {
        let mut books = self.books();
        assert!(!books.answered.contains(&text.row));
        books.open.insert(
            text.row,
            Open {
                text: text.clone(),
                settled: false,
                queued: false,
                cancelled: false,
            },
        );
        Arc::new(Row {
            ledger: Arc::clone(self),
            row: text.row,
        })
    }

    pub fn settled(&self, row: u32) {
        if let Some(open) = self.books().open.get_mut(&row) {
            open.settled = true;
        }
    }

    pub fn queued(&self, class: Class, row: u32) {
        let mut books = self.books();
        books.queues[index(class)].push_back(row);
        if let Some(open) = books.open.get_mut(&row) {
            open.queued = true;
        }
    }

    pub fn overloaded(&self) {
        self.books().tally.overloaded += 1;
    }

    pub fn waits(&self) {
        self.books().tally.waited += 1;
    }

    pub fn split(&self) {
        self.books().tally.split += 1;
    }

    pub fn shed(&self, count: usize) {
        self.books().tally.shed += count;
    }

    pub fn all_answered(&self) -> bool {
        self.books().open.is_empty()
    }

    pub fn tally(&self) -> Tally {
        self.books().tally.clone()
    }

    /// Time of receipt of the oldest text of `class` in the batcher.
    pub fn head(&self, class: Class) -> Option<Nanos> {
        let books = self.books();
        let row = books.queues[index(class)].front()?;
        Some(books.open[row].text.received)
    }

    pub fn cancel_some(&self, rng: &mut SmallRng, load: Load) {
        if !matches!(load, Load::Light | Load::Heavy) || !rng.random_bool(0.1) {
            return;
        }
        let mut books = self.books();
        let count = books.open.len().max(1);
        if let Some(open) = books.open.values_mut().nth(rng.random_range(0..count)) {
            open.cancelled = true;
        }
    }

    /// Checks a batch that leaves the batcher: limits, packing, order of arrival.
    pub fn launched(&self, batch: &Batch, policy: &BatchPolicy) {
        let requests = batch.requests();
        assert!(!batch.is_empty() && batch.len() <= policy.requests_max());
        assert!(batch.tokens.tokens() <= policy.tokens_max());
        assert_eq!(batch.len(), batch.tokens.sequences());
        let mut books = self.books();
        for (i, request) in requests.iter().enumerate() {
            let row = request.tokens.as_slice()[0];
            let ends = [
                batch.tokens.cu_seqlens[i] as usize,
                batch.tokens.cu_seqlens[i + 1] as usize,
            ];
            assert_eq!(&batch.tokens.ids[ends[0]..ends[1]], request.tokens.as_slice());
            let head = books.queues[index(request.context.class)].pop_front();
            assert_eq!(head, Some(row), "{:?} work out of order", request.context.class);
            if let Some(open) = books.open.get_mut(&row) {
                open.queued = false;
            }
            match request.context.class {
                Class::Interactive => books.tally.interactive_ran += 1,
                Class::Bulk => books.tally.bulk_ran += 1,
            }
        }
    }

    /// Checks a batch that starts: no request is dead, or will be by the predicted end.
    pub fn started(&self, batch: &Batch, now: Nanos) {
        assert_eq!(batch.len(), batch.tokens.sequences());
        let books = self.books();
        for request in batch.requests() {
            let row = request.tokens.as_slice()[0];
            assert!(
                !books.open[&row].cancelled,
                "row {row} runs though it is cancelled"
            );
            let end = now + batch.predicted().unwrap_or_default();
            let dead = request
                .context
                .deadline
                .is_some_and(|deadline| deadline <= now || deadline < end);
            assert!(!dead, "row {row} runs though it is late");
        }
    }

    /// Compares the figures of `admission` with the open texts, and with the bounds.
    pub fn check_room(&self, admission: &Admission) {
        let books = self.books();
        let (mut texts, mut tokens, mut bytes) = ([0; 2], [0; 2], 0);
        for open in books.open.values() {
            let class = index(open.text.class);
            texts[class] += 1;
            tokens[class] += if open.settled {
                open.text.len
            } else {
                open.text.bound
            };
            bytes += if open.settled { 0 } else { open.text.bytes };
        }
        assert_eq!(Class::ALL.map(|class| admission.depth(class)), texts);
        assert_eq!(Class::ALL.map(|class| admission.tokens(class)), tokens);
        let bounds = admission.bounds();
        assert!(texts[0] + texts[1] <= bounds.texts_max);
        assert!(tokens[0] + tokens[1] <= bounds.tokens_max);
        assert!(bytes <= bounds.bytes_max);
    }
}

fn index(class: Class) -> usize {
    usize::from(class == Class::Bulk)
}
