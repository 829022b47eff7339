//! Stage 4: one thread around [`Batcher`]. It gathers while the device is busy and hands over a batch
//! when the device asks for one. Of several executors the idle come first. Where the device lets urgent batches into
//! those of bulk work, interactive texts that come while such a batch runs are one, for an executor of their own.

use std::collections::VecDeque;
use std::time::Duration;

use crossbeam_channel::{Receiver, SendError, Sender, after, never, select};
use penstock_core::{Batch, BatchShape, Batcher, LeastLoaded, Lowered, Nanos, Poll, Request};
use tracing::warn;

use penstock_telemetry::clock::Clock;

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
    /// Whether the last of them takes urgent batches alone.
    pub urgent: bool,
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
        urgent,
    } = wires;
    let queue = requests.clone();
    let mut executors = Executors::new(batches, urgent, held_max);
    // Packed for an executor that is gone.
    let mut packed = None;
    let mut open = true;
    while open || !batcher.is_empty() || packed.is_some() {
        while let Ok(request) = requests.try_recv() {
            batcher.offer(request);
        }
        let wake = hand_out(&mut batcher, &mut executors, &mut packed, clock);
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
                    executors.done(executor);
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

/// Gives each executor what it has room for, `packed` first. Returns when there is more to give, where that is known.
fn hand_out(
    batcher: &mut Batcher,
    executors: &mut Executors,
    packed: &mut Option<Batch>,
    clock: Clock,
) -> Option<Nanos> {
    loop {
        let mut wake = None;
        // First: what an executor prepares behind the batch that lets urgent ones in would wait for its end.
        if packed.is_none() && executors.let_in() {
            match batcher.poll_urgent(clock.now()) {
                Poll::Run(batch) => *packed = executors.give_urgent(batch),
                Poll::IdleUntil(at) => wake = at,
            }
        }
        let Some(executor) = executors.turns.next() else {
            return wake;
        };
        let batch = match packed.take() {
            Some(batch) => batch,
            None if batcher.is_empty() => return None,
            None => match batcher.poll(clock.now()) {
                Poll::Run(batch) => batch,
                Poll::IdleUntil(at) => return at,
            },
        };
        *packed = executors.give(executor, batch);
    }
}

/// Who runs batches, and whose turn it is.
struct Executors {
    to: Vec<Option<Sender<Batch>>>,
    turns: LeastLoaded,
    /// Of each batch that an executor holds, in the order in which it runs them: whether it lets urgent ones in.
    lets_in: Vec<VecDeque<bool>>,
    urgent: Option<Sender<Batch>>,
    urgent_runs: bool,
}

impl Executors {
    fn new(mut to: Vec<Sender<Batch>>, urgent: bool, held_max: usize) -> Executors {
        let urgent = if urgent { to.pop() } else { None };
        Executors {
            turns: LeastLoaded::new(to.len(), held_max),
            lets_in: vec![VecDeque::with_capacity(held_max); to.len()],
            to: to.into_iter().map(Some).collect(),
            urgent,
            urgent_runs: false,
        }
    }

    /// Whether an urgent batch would be let in.
    fn let_in(&self) -> bool {
        let is_let_in = |held: &VecDeque<bool>| held.contains(&true);
        self.urgent.is_some() && !self.urgent_runs && self.lets_in.iter().any(is_let_in)
    }

    /// Hands an urgent batch over; it comes back where its executor is gone.
    fn give_urgent(&mut self, batch: Batch) -> Option<Batch> {
        let sent = match &self.urgent {
            Some(to) => to.send(batch),
            None => Err(SendError(batch)),
        };
        self.urgent_runs = sent.is_ok();
        sent.err().map(|SendError(batch)| {
            self.urgent = None;
            batch
        })
    }

    /// An executor has run the oldest batch that it holds.
    fn done(&mut self, executor: usize) {
        match self.lets_in.get_mut(executor) {
            Some(held) => drop(held.pop_front()),
            None => self.urgent_runs = false,
        }
        self.turns.done(executor);
    }

    /// Hands a batch over; one whose executor is gone comes back.
    fn give(&mut self, executor: usize, batch: Batch) -> Option<Batch> {
        let lets_in = batch.is_bulk();
        let sent = match &self.to[executor] {
            Some(to) => to.send(batch),
            None => Err(SendError(batch)),
        };
        match sent {
            Ok(()) => {
                self.lets_in[executor].push_back(lets_in);
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
        match self.to.get_mut(executor) {
            Some(to) => {
                *to = None;
                self.lets_in[executor].clear();
            }
            None => self.urgent = None,
        }
    }
}

/// A batch is reported before its answers go out, and these are what leaves the queue's figures: the round
/// after the last batch may come too early to see them gone.
const PUBLISH: Duration = Duration::from_secs(1);

/// A timer in the past still has to fire after some time.
const MIN_WAIT: Duration = Duration::from_micros(10);

#[cfg(test)]
mod tests;
