//! Stage 4: one thread around [`Batcher`]. It collects texts while the device is busy and hands over a batch
//! when the device asks for one. Idle executors come first. On a device with preemption, interactive texts
//! that arrive during a bulk batch form an urgent batch for an executor of its own.

use std::collections::VecDeque;
use std::time::Duration;

use crossbeam_channel::{Receiver, SendError, Sender, after, never, select};
use penstock_core::{Batch, BatchShape, Batcher, LeastLoaded, Lowered, Nanos, Poll, Request};
use tracing::warn;

use penstock_telemetry::clock::Clock;

/// A report of an executor.
#[derive(Clone, Copy, Debug)]
pub enum Report {
    /// A batch is finished: there is a credit for one more.
    Ran(Ran),
    /// The executor with this number has ended.
    Gone(usize),
}

/// A finished batch.
#[derive(Clone, Copy, Debug)]
pub struct Ran {
    /// Number of the executor.
    pub executor: usize,
    /// Shape of the batch.
    pub shape: BatchShape,
    /// Duration of the forward pass; `None` if it failed and tells nothing about the cost.
    pub took: Option<Duration>,
    /// Tokens that did not fit the device's memory, if the batch failed for that reason.
    pub too_large: Option<usize>,
}

/// The scheduler's ends of its channels.
pub struct Wires {
    /// Tokenized requests.
    pub requests: Receiver<Request>,
    /// The executors' reports.
    pub reports: Receiver<Report>,
    /// Channels to the executors, by number. They hold as many batches as an executor may, so a send never
    /// blocks.
    pub batches: Vec<Sender<Batch>>,
    /// Whether the last executor takes urgent batches only.
    pub urgent: bool,
}

/// Runs until the requests' senders are gone and all their requests are handed over, or until every executor
/// is gone. Requests left in the batcher then answer by themselves. Requests left in the queue do not, and
/// senders may add more, so the queue is returned.
///
/// `held_max` is the number of batches an executor can hold, the running one included. `idle` is called after
/// each round with the token budget of a batch, to publish the queue's figures.
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
    // A batch whose executor is gone.
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

/// Gives each executor batches for its credits, `packed` first. Returns when more work is due, if that is
/// known.
fn hand_out(
    batcher: &mut Batcher,
    executors: &mut Executors,
    packed: &mut Option<Batch>,
    clock: Clock,
) -> Option<Nanos> {
    loop {
        let mut wake = None;
        // First: a batch prepared behind the preemptible one would wait for its end.
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

/// The executors and their dispatch.
struct Executors {
    to: Vec<Option<Sender<Batch>>>,
    turns: LeastLoaded,
    /// For each executor: whether the batches it holds, in order, are preemptible.
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

    /// Whether an urgent batch could preempt one now.
    fn let_in(&self) -> bool {
        let is_let_in = |held: &VecDeque<bool>| held.contains(&true);
        self.urgent.is_some() && !self.urgent_runs && self.lets_in.iter().any(is_let_in)
    }

    /// Hands an urgent batch over; returns it if its executor is gone.
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

    /// Records that an executor has run its oldest batch.
    fn done(&mut self, executor: usize) {
        match self.lets_in.get_mut(executor) {
            Some(held) => drop(held.pop_front()),
            None => self.urgent_runs = false,
        }
        self.turns.done(executor);
    }

    /// Hands a batch over; returns it if its executor is gone.
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

    /// Drops the channel, and with it the batches left in it.
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

/// Interval of publishing while idle. A batch is reported before its answers go out, so the round after the
/// last batch may be too early to see an empty queue.
const PUBLISH: Duration = Duration::from_secs(1);

/// Shortest wait, because a timer in the past must still fire later.
const MIN_WAIT: Duration = Duration::from_micros(10);

#[cfg(test)]
mod tests;
