//! Stage 4: one thread around [`Batcher`]. It gathers while the device is busy and hands over a batch
//! when the device asks for one.

use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, after, never, select};
use penstock_core::{BatchShape, Batcher, Nanos, Poll, Request};

use crate::clock::Clock;

/// What the executor reports after each batch: it has room for one more.
#[derive(Clone, Copy, Debug)]
pub struct Ran {
    /// What it ran.
    pub shape: BatchShape,
    /// How long the forward pass took; `None` where it failed and says nothing about the cost.
    pub took: Option<Duration>,
}

/// The scheduler's ends of its channels.
pub struct Wires {
    /// Tokenized requests.
    pub requests: Receiver<Request>,
    /// The executor's reports.
    pub ran: Receiver<Ran>,
    /// To the executor. Its capacity is the number of credits, so that a send never blocks.
    pub batches: Sender<penstock_core::Batch>,
}

/// Runs until the requests' senders are gone and everything they sent is on its way, or until the
/// executor is gone. What is left in the batcher then answers by itself.
///
/// `credits`: how many batches the executor can hold, the running one included. `idle` is called
/// after each round, to publish the queue's figures.
pub fn run(mut batcher: Batcher, wires: Wires, mut credits: usize, clock: Clock, mut idle: impl FnMut()) {
    let Wires { mut requests, ran, batches } = wires;
    let mut open = true;
    while open || !batcher.is_empty() {
        while let Ok(request) = requests.try_recv() {
            batcher.offer(request);
        }
        let mut wake = None;
        while credits > 0 && !batcher.is_empty() {
            match batcher.poll(clock.now()) {
                Poll::Run(batch) => {
                    if batches.send(batch).is_err() {
                        return;
                    }
                    credits -= 1;
                }
                Poll::IdleUntil(at) => {
                    wake = at;
                    break;
                }
            }
        }
        idle();
        if !open && batcher.is_empty() {
            return;
        }
        let timer = wake.map_or_else(never, |at: Nanos| after(at.since(clock.now()).max(MIN_WAIT)));
        select! {
            recv(requests) -> request => match request {
                Ok(request) => batcher.offer(request),
                Err(_) => { open = false; requests = never(); }
            },
            recv(ran) -> report => match report {
                Ok(Ran { shape, took }) => {
                    credits += 1;
                    if let Some(took) = took {
                        batcher.observe(shape, took);
                    }
                }
                Err(_) => return,
            },
            recv(timer) -> _ => {}
        }
    }
}

/// A timer in the past still has to fire after some time.
const MIN_WAIT: Duration = Duration::from_micros(10);
