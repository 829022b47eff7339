//! The handles of one model version.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use penstock_core::{Class, Stages};

use super::histogram::{Histogram, LATENCY, SHARE, SIZE, STAGE};
use super::labels::{Cells, OutcomeLabel, Outcomes, Source};
use super::names::STAGES;
use super::window::SlidingQuantiles;
use crate::clock::Clock;

/// What the stages of one model version report to. Every method is cheap and blocks nobody.
pub struct ModelMetrics {
    pub(super) name: String,
    pub(super) version: String,
    clock: Clock,
    pub(super) requests: Cells<Requests>,
    /// Of answered requests, in the order of [`STAGES`].
    pub(super) stages: [Histogram; STAGES.len()],
    pub(super) queues: [Queue; Class::ALL.len()],
    pub(super) batches: Batches,
    texts: AtomicU64,
    success: Sum,
    fail: Sum,
    last_batch_ms: AtomicU64,
}

/// The requests of one source and class.
pub(super) struct Requests {
    pub(super) outcomes: Outcomes,
    pub(super) durations: Histogram,
    pub(super) latency: SlidingQuantiles,
}

impl Default for Requests {
    fn default() -> Requests {
        Requests {
            outcomes: Outcomes::default(),
            durations: Histogram::new(&LATENCY),
            latency: SlidingQuantiles::default(),
        }
    }
}

/// The queue of one class, as it was last seen.
#[derive(Default)]
pub(super) struct Queue {
    pub(super) depth: AtomicU64,
    pub(super) tokens: AtomicU64,
}

/// The shapes of batches.
pub(super) struct Batches {
    pub(super) texts: Histogram,
    pub(super) tokens: Histogram,
    pub(super) durations: Histogram,
    pub(super) fill: Histogram,
}

#[derive(Default)]
struct Sum {
    count: AtomicU64,
    ns: AtomicU64,
}

impl Sum {
    fn add(&self, took: Duration) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.ns.fetch_add(nanos(took), Ordering::Relaxed);
    }

    fn read(&self) -> Tally {
        Tally {
            count: self.count.load(Ordering::Relaxed),
            ns: self.ns.load(Ordering::Relaxed),
        }
    }
}

/// How often something happened and how long it took in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How often.
    pub count: u64,
    /// Nanoseconds in all.
    pub ns: u64,
}

/// What Triton's `ModelStatistics` asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Texts scored.
    pub inference_count: u64,
    /// Batches run.
    pub execution_count: u64,
    /// Milliseconds since 1970 at the end of the last batch; 0 where there was none.
    pub last_inference_ms: u64,
    /// Requests that succeeded.
    pub success: Tally,
    /// Requests that failed.
    pub fail: Tally,
    /// Time in the queue, of requests that succeeded.
    pub queue: Tally,
    /// Time to tokenize.
    pub compute_input: Tally,
    /// Time to execute.
    pub compute_infer: Tally,
    /// Time to respond.
    pub compute_output: Tally,
}

fn nanos(took: Duration) -> u64 {
    u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)
}

impl ModelMetrics {
    pub(super) fn new(name: &str, version: &str, clock: Clock) -> ModelMetrics {
        ModelMetrics {
            name: name.to_owned(),
            version: version.to_owned(),
            clock,
            requests: Cells::default(),
            stages: std::array::from_fn(|_| Histogram::new(&STAGE)),
            queues: std::array::from_fn(|_| Queue::default()),
            batches: Batches {
                texts: Histogram::new(&SIZE),
                tokens: Histogram::new(&SIZE),
                durations: Histogram::new(&STAGE),
                fill: Histogram::new(&SHARE),
            },
            texts: AtomicU64::new(0),
            success: Sum::default(),
            fail: Sum::default(),
            last_batch_ms: AtomicU64::new(0),
        }
    }

    /// A request ended. `stages` are those of its last text, where it got that far.
    pub fn request_done(
        &self,
        source: Source,
        class: Class,
        outcome: OutcomeLabel,
        texts: usize,
        stages: Option<&Stages>,
        respond: Duration,
        total: Duration,
    ) {
        let requests = self.requests.at(source, class);
        requests.outcomes.count(outcome);
        if outcome.is_latency() {
            requests.durations.record(nanos(total));
            requests.latency.record(self.clock.now(), total);
        }
        if outcome != OutcomeLabel::Ok {
            self.fail.add(total);
            return;
        }
        self.success.add(total);
        self.texts.fetch_add(texts as u64, Ordering::Relaxed);
        if let Some(stages) = stages {
            let took = [stages.tokenize, stages.queue, stages.execute, respond];
            self.stages
                .iter()
                .zip(took)
                .for_each(|(histogram, took)| histogram.record(nanos(took)));
        }
    }

    /// A batch ran, under a budget of `tokens_max`.
    pub fn batch_done(&self, texts: usize, tokens: usize, tokens_max: usize, took: Duration) {
        let Batches {
            texts: by_texts,
            tokens: by_tokens,
            durations,
            fill,
        } = &self.batches;
        by_texts.record(texts as u64);
        by_tokens.record(tokens as u64);
        durations.record(nanos(took));
        fill.record(
            (tokens as u64 * 1_000_000)
                .checked_div(tokens_max as u64)
                .unwrap_or(0),
        );
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.last_batch_ms
            .store(since_1970.as_millis() as u64, Ordering::Relaxed);
    }

    /// The queue of a class now holds that much.
    pub fn queue(&self, class: Class, depth: usize, tokens: usize) {
        let queue = &self.queues[class as usize];
        queue.depth.store(depth as u64, Ordering::Relaxed);
        queue.tokens.store(tokens as u64, Ordering::Relaxed);
    }

    /// The sums that Triton's `ModelStatistics` is made of.
    pub fn statistics(&self) -> Statistics {
        let [compute_input, queue, compute_infer, compute_output] = self.stages.each_ref().map(|stage| {
            let snapshot = stage.snapshot();
            Tally {
                count: snapshot.count(),
                ns: snapshot.sum,
            }
        });
        Statistics {
            inference_count: self.texts.load(Ordering::Relaxed),
            execution_count: self.batches.texts.snapshot().count(),
            last_inference_ms: self.last_batch_ms.load(Ordering::Relaxed),
            success: self.success.read(),
            fail: self.fail.read(),
            queue,
            compute_input,
            compute_infer,
            compute_output,
        }
    }
}
