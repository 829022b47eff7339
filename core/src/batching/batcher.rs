//! Composition of the next batch: two classes, one device, a token budget, and no dead request.
//!
//! Within a class the order is that of arrival. A text that does not fit ends its class's turn and is not
//! overtaken, so nothing starves inside a class. Between the classes the order is:
//! 1. bulk work older than `bulk_age_max`, at least one text and at most a quarter of the batch; it is left
//!    out once where the previous batch held bulk work alone while interactive work waited;
//! 2. interactive work;
//! 3. bulk work in the remaining room, while the batch is predicted to keep the interactive target.
//!    Interactive work itself is not cut: its batches are as large as the load makes them.
//!
//! A device that preempts bulk work lets an interactive text wait for a part of a bulk batch, not for all of it.
//! Such a batch may be as many times longer, and interactive texts that arrive meanwhile form an urgent batch.
//!
//! So under any load each class gets a share of every second batch. The quarter exists because a stream with a
//! permanent backlog has *only* old work: without it, ageing would swap the two classes.

use std::collections::VecDeque;
use std::time::Duration;

use super::batch::{Batch, BatchShape};
use super::context::earlier;
use super::cost::CostModel;
use super::policy::BatchPolicy;
use super::reply::Rejection;
use super::request::{Class, Request};
use crate::time::Nanos;

/// Aged bulk work may take one part in this many of a batch before interactive work.
const AGED_SHARE: u32 = 4;
/// Batches within the interactive target: at worst a text waits for the running batch and its own. Prefetched
/// ones come on top.
const BATCHES_IN_TARGET: u32 = 2;
/// Time for which the last interactive text keeps bulk batches short.
const INTERACTIVE_RECENT: Duration = Duration::from_secs(10);
/// Refusals by forecast in a row, without a batch that checks the forecast, after which one text runs anyway.
/// Otherwise a forecast that is too pessimistic would never be corrected.
const PROBE_AFTER: u32 = 16;

/// Next step of the executor.
pub enum Poll {
    /// Run this batch.
    Run(Batch),
    /// Nothing runs before this time, or before a request arrives.
    IdleUntil(Option<Nanos>),
}

/// Gathers requests and hands out batches when the executor asks.
pub struct Batcher {
    policy: BatchPolicy,
    /// Number of batches that share the interactive target.
    batches_in_target: u32,
    /// Parts in which a bulk batch runs; urgent work may run between them.
    parts: u32,
    cost: CostModel,
    interactive: VecDeque<Request>,
    bulk: VecDeque<Request>,
    waiting: BatchShape,
    /// Lower bound of the deadlines of all waiting requests. It is reset only when the queues are empty. A
    /// stale bound starts a batch sooner than necessary, never later.
    deadline_min: Option<Nanos>,
    interactive_seen: Option<Nanos>,
    interactive_owed: bool,
    refused_by_forecast: u32,
}

/// Change of the token budget of a batch after the device ran out of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lowered {
    /// The old budget.
    pub from: usize,
    /// The new budget.
    pub to: usize,
}

/// A batch in the making.
struct Draft {
    requests: Vec<Request>,
    shape: BatchShape,
    predicted: Option<Duration>,
    deadline: Option<Nanos>,
}

/// Limits up to which one class may fill a draft that is not empty.
struct Room {
    tokens: usize,
    texts: usize,
    time: Option<Duration>,
    /// Least age of a request that may join.
    age_min: Duration,
}

impl Draft {
    /// An empty draft with room for this many requests.
    fn new(requests: usize) -> Draft {
        Draft {
            requests: Vec::with_capacity(requests),
            shape: BatchShape::default(),
            predicted: None,
            deadline: None,
        }
    }
}

impl Batcher {
    /// A batcher with nothing waiting, whose executor prepares `prefetch` batches while one runs.
    pub fn new(policy: BatchPolicy, cost: CostModel, prefetch: usize) -> Batcher {
        let prefetch = u32::try_from(prefetch).unwrap_or(u32::MAX);
        Batcher {
            policy,
            batches_in_target: BATCHES_IN_TARGET.saturating_add(prefetch),
            parts: 1,
            cost,
            interactive: VecDeque::new(),
            bulk: VecDeque::new(),
            waiting: BatchShape::default(),
            deadline_min: None,
            interactive_seen: None,
            interactive_owed: false,
            refused_by_forecast: 0,
        }
    }

    /// The same batcher for a device on which urgent work can preempt a bulk batch at `points` points.
    #[must_use]
    pub fn with_preemption_points(self, points: usize) -> Batcher {
        let parts = u32::try_from(points.max(1)).unwrap_or(u32::MAX);
        Batcher { parts, ..self }
    }

    /// Queues a request. One that is longer than the model's window is refused: it would fit no batch.
    pub fn offer(&mut self, r: Request) {
        let len = r.tokens.len();
        if len > self.policy.window() {
            let why = format!(
                "text of {len} tokens exceeds the window of {}",
                self.policy.window()
            );
            let now = r.tokenized;
            return r.refuse(Rejection::Invalid(why), now);
        }
        self.waiting = self.waiting.with(len);
        self.deadline_min = earlier(self.deadline_min, r.context.deadline);
        match r.context.class {
            Class::Interactive => {
                self.interactive_seen = self.interactive_seen.max(Some(r.tokenized));
                self.interactive.push_back(r);
            }
            Class::Bulk => self.bulk.push_back(r),
        }
    }

    /// Packs the next batch. Call it when the executor has room for one; dead requests that are found on the
    /// way are answered.
    pub fn poll(&mut self, now: Nanos) -> Poll {
        if let Some(at) = self.worth_waiting(now) {
            return Poll::IdleUntil(Some(at));
        }
        let room = self.room();
        let beside = Room {
            time: self.time_max(now),
            ..room
        };
        let alone = Room {
            time: self.time_max_alone(now),
            ..room
        };
        let mut draft = Draft::new(self.len().min(room.texts));
        if !self.interactive_owed {
            let aged = Room {
                tokens: room.tokens / AGED_SHARE as usize,
                texts: room.texts / AGED_SHARE as usize,
                time: beside.time.map(|time| time / AGED_SHARE),
                age_min: self.policy.bulk_age_max(),
            };
            self.fill(&mut draft, Class::Bulk, &aged, now);
        }
        let before = draft.requests.len();
        self.fill(&mut draft, Class::Interactive, &room, now);
        let has_interactive = draft.requests.len() > before;
        self.interactive_owed = !has_interactive && !self.interactive.is_empty();
        let left = if has_interactive { beside } else { alone };
        self.fill(&mut draft, Class::Bulk, &left, now);
        self.packed(draft)
    }

    /// Packs a batch of interactive work alone. Call it when a bulk batch can be preempted.
    pub fn poll_urgent(&mut self, now: Nanos) -> Poll {
        if self.interactive.is_empty() {
            return Poll::IdleUntil(None);
        }
        if let Some(at) = self.worth_waiting(now) {
            return Poll::IdleUntil(Some(at));
        }
        let room = self.room();
        let mut draft = Draft::new(self.interactive.len().min(room.texts));
        self.fill(&mut draft, Class::Interactive, &room, now);
        self.interactive_owed = false;
        self.packed(draft)
    }

    fn packed(&mut self, draft: Draft) -> Poll {
        if self.is_empty() {
            self.deadline_min = None;
        }
        if draft.requests.is_empty() {
            return Poll::IdleUntil(None);
        }
        Poll::Run(Batch::pack(draft.requests, draft.predicted))
    }

    /// Limits of a whole batch.
    fn room(&self) -> Room {
        Room {
            tokens: self.policy.tokens_max(),
            texts: self.policy.requests_max(),
            time: None,
            age_min: Duration::ZERO,
        }
    }

    /// Learns the run time of a batch.
    pub fn observe(&mut self, shape: BatchShape, took: Duration) {
        self.cost.observe(shape, took);
        self.refused_by_forecast = 0;
    }

    /// Learns that the device had no memory for a batch of `tokens`. From now on a batch has at most half of
    /// that, or as much as the longest text; `None` where the budget was as low already.
    pub fn out_of_memory(&mut self, tokens: usize) -> Option<Lowered> {
        let from = self.policy.tokens_max();
        self.policy = self.policy.lowered(from.min(tokens / 2));
        let to = self.policy.tokens_max();
        (to < from).then_some(Lowered { from, to })
    }

    /// Most tokens of one batch.
    pub fn tokens_max(&self) -> usize {
        self.policy.tokens_max()
    }

    /// Number of waiting requests.
    pub fn len(&self) -> usize {
        self.interactive.len() + self.bulk.len()
    }

    /// True when no request waits.
    pub fn is_empty(&self) -> bool {
        self.interactive.is_empty() && self.bulk.is_empty()
    }

    /// The learned cost of the device.
    pub fn cost(&self) -> &CostModel {
        &self.cost
    }

    /// Tokens a second that the device sustains in full batches; `None` before enough batches ran.
    pub fn capacity_tokens_per_second(&self) -> Option<f64> {
        self.cost.capacity_tokens_per_second(self.policy.tokens_max())
    }

    /// Moves requests of `class` into `draft` while there is room, and answers dead ones.
    fn fill(&mut self, draft: &mut Draft, class: Class, room: &Room, now: Nanos) {
        while let Some(head) = self.queue(class).front() {
            if now.since(head.context.received) < room.age_min {
                return;
            }
            if let Some(why) = head.dead(now) {
                self.refuse(class, why, now);
                continue;
            }
            let shape = draft.shape.with(head.tokens.len());
            let first = draft.requests.is_empty();
            if !first && (shape.tokens > room.tokens || shape.texts > room.texts) {
                return;
            }
            let deadline = head.context.deadline;
            let mut predicted = self.cost.predict(shape);
            if let Some(took) = predicted {
                let end = now + took;
                let holds_up_others = draft.deadline.is_some_and(|others| others < end);
                if !first && (holds_up_others || room.time.is_some_and(|max| took > max)) {
                    return;
                }
                if deadline.is_some_and(|deadline| deadline < end) {
                    if !first || self.refused_by_forecast < PROBE_AFTER {
                        self.refused_by_forecast += 1;
                        let why = "it would pass before the batch ends";
                        self.refuse(class, Rejection::DeadlineExceeded(why), now);
                        continue;
                    }
                    self.refused_by_forecast = 0;
                    // This text is a probe: its deadline keeps all others out, so it runs alone.
                    predicted = None;
                }
            }
            draft.predicted = predicted;
            draft.shape = shape;
            draft.deadline = earlier(draft.deadline, deadline);
            draft.requests.extend(self.take(class));
        }
    }

    /// Time at which to start a batch that is not full; `None` for now.
    fn worth_waiting(&self, now: Nanos) -> Option<Nanos> {
        if self.policy.queue_delay_max().is_zero() {
            return None;
        }
        let predicted = self.cost.predict(self.waiting);
        let time_max = if self.interactive.is_empty() {
            self.time_max_alone(now)
        } else {
            self.time_max(now)
        };
        let full = self.waiting.tokens >= self.policy.tokens_max()
            || self.waiting.texts >= self.policy.requests_max()
            || time_max.zip(predicted).is_some_and(|(max, took)| took >= max);
        if full {
            return None;
        }
        let heads = [self.interactive.front(), self.bulk.front()];
        let oldest = heads.into_iter().flatten().map(|r| r.tokenized).min()?;
        // The delay is also the margin before a deadline, so that a late timer costs no request.
        let delay = self.policy.queue_delay_max();
        let latest = self
            .deadline_min
            .map(|deadline| deadline - predicted.unwrap_or_default() - delay);
        earlier(Some(oldest + delay), latest).filter(|&at| at > now)
    }

    /// Longest run time of a batch with bulk and interactive work that keeps the interactive target.
    fn time_max(&self, now: Nanos) -> Option<Duration> {
        let recent = self
            .interactive_seen
            .is_some_and(|at| now.since(at) < INTERACTIVE_RECENT);
        let target = self
            .policy
            .interactive_target()
            .filter(|_| recent || !self.interactive.is_empty());
        target.map(|target| target / self.batches_in_target)
    }

    /// Longest run time of a batch of bulk work alone.
    fn time_max_alone(&self, now: Nanos) -> Option<Duration> {
        self.time_max(now).map(|time| time.saturating_mul(self.parts))
    }

    fn queue(&self, class: Class) -> &VecDeque<Request> {
        match class {
            Class::Interactive => &self.interactive,
            Class::Bulk => &self.bulk,
        }
    }

    fn take(&mut self, class: Class) -> Option<Request> {
        let request = match class {
            Class::Interactive => self.interactive.pop_front(),
            Class::Bulk => self.bulk.pop_front(),
        }?;
        self.waiting = self.waiting.without(request.tokens.len());
        Some(request)
    }

    fn refuse(&mut self, class: Class, why: Rejection, now: Nanos) {
        if let Some(request) = self.take(class) {
            request.refuse(why, now);
        }
    }
}

#[cfg(test)]
mod tests;
