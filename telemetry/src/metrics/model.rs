//! The handles of one model version.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use metrics::{Counter, Gauge, Histogram};
use penstock_core::{Class, Source, Stages};

use super::labels::{Cells, OutcomeLabel, Outcomes};
use super::level::Level;
use super::names::{self, STAGES};
use super::series::Series;

/// Metrics of the stages of one model version. Every method is cheap and never blocks. The versions of a
/// model share the `penstock_` series, which have no label `version`; Triton's series have it.
pub struct ModelMetrics {
    name: String,
    series: Arc<Series>,
    requests: Cells<Requests>,
    /// Stages of answered requests, in the order of [`STAGES`].
    stages: [Histogram; STAGES.len()],
    queues: [Queue; Class::ALL.len()],
    pending: Gauge,
    batch_texts: Histogram,
    batch_tokens: Histogram,
    batch_durations: Histogram,
    batch_fill: Histogram,
    batch_tokens_max: Gauge,
    sums: Sums,
    triton: Triton,
}

/// The requests of one source and class.
struct Requests {
    outcomes: Outcomes,
    durations: Histogram,
    latency: Histogram,
}

/// The queue of one class, as last reported.
struct Queue {
    depth: Level,
    tokens: Level,
}

/// Sums for `ModelStatistics`, kept here because a handle of the recorder cannot be read.
#[derive(Default)]
struct Sums {
    texts: AtomicU64,
    batches: AtomicU64,
    last_batch_ms: AtomicU64,
    success: Sum,
    fail: Sum,
    stages: [Sum; STAGES.len()],
}

#[derive(Default)]
struct Sum {
    count: AtomicU64,
    ns: AtomicU64,
}

impl Sum {
    fn add(&self, took: Duration) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.count.fetch_add(1, Ordering::Relaxed);
        self.ns.fetch_add(ns, Ordering::Relaxed);
    }

    fn read(&self) -> Tally {
        Tally {
            count: self.count.load(Ordering::Relaxed),
            ns: self.ns.load(Ordering::Relaxed),
        }
    }
}

/// Number of events and their total duration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Number of events.
    pub count: u64,
    /// Total nanoseconds.
    pub ns: u64,
}

/// Statistics in the form of Triton's `ModelStatistics`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Texts scored.
    pub inference_count: u64,
    /// Batches run.
    pub execution_count: u64,
    /// Milliseconds since 1970 at the end of the last batch; 0 before the first.
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

/// Triton's counters, each with its value.
type Triton = [(Counter, fn(&Statistics) -> u64); 9];

fn triton(series: &Series, labels: &[&str]) -> Triton {
    let counter = |family, of: fn(&Statistics) -> u64| (series.counter(family, labels), of);
    [
        counter(&names::NV_SUCCESS, |s| s.success.count),
        counter(&names::NV_FAILURE, |s| s.fail.count),
        counter(&names::NV_COUNT, |s| s.inference_count),
        counter(&names::NV_EXEC_COUNT, |s| s.execution_count),
        counter(&names::NV_REQUEST_DURATION, |s| s.success.ns / 1000),
        counter(&names::NV_QUEUE_DURATION, |s| s.queue.ns / 1000),
        counter(&names::NV_INPUT_DURATION, |s| s.compute_input.ns / 1000),
        counter(&names::NV_INFER_DURATION, |s| s.compute_infer.ns / 1000),
        counter(&names::NV_OUTPUT_DURATION, |s| s.compute_output.ns / 1000),
    ]
}

impl ModelMetrics {
    pub(super) fn new(name: &str, version: &str, series: Arc<Series>) -> ModelMetrics {
        let labels = [name, version];
        let queue = |class: Class| Queue {
            depth: Level::new(series.gauge(&names::QUEUE_DEPTH, &[name, class.name()])),
            tokens: Level::new(series.gauge(&names::QUEUE_TOKENS, &[name, class.name()])),
        };
        // Batches are packed, so there is no padding to count; dashboards that compare servers need the zero.
        drop(series.counter(&names::PADDING_TOKENS, &[name]));
        ModelMetrics {
            name: name.to_owned(),
            requests: Cells::default(),
            stages: STAGES.map(|stage| series.histogram(&names::STAGE_DURATION, &[name, stage])),
            queues: Class::ALL.map(queue),
            pending: series.gauge(&names::NV_PENDING, &labels),
            batch_texts: series.histogram(&names::BATCH_TEXTS, &[name]),
            batch_tokens: series.histogram(&names::BATCH_TOKENS, &[name]),
            batch_durations: series.histogram(&names::BATCH_DURATION, &[name]),
            batch_fill: series.histogram(&names::BATCH_FILL, &[name]),
            batch_tokens_max: series.gauge(&names::BATCH_TOKENS_MAX, &labels),
            sums: Sums::default(),
            triton: triton(&series, &labels),
            series,
        }
    }

    fn requests(&self, source: Source, class: Class) -> &Requests {
        self.requests.at(source, class, || {
            let (series, labels) = (&self.series, [&*self.name, source.name(), class.name()]);
            Requests {
                outcomes: Outcomes::new(series, &self.name, source, class),
                durations: series.histogram(&names::REQUEST_DURATION, &labels),
                latency: series.histogram(&names::REQUEST_LATENCY, &labels),
            }
        })
    }

    /// A request ended. `stages` are those of its last text, if it ran.
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
        let requests = self.requests(source, class);
        requests.outcomes.count(outcome);
        if outcome.is_latency() {
            requests.durations.record(total);
            requests.latency.record(total);
        }
        if outcome != OutcomeLabel::Ok {
            self.sums.fail.add(total);
            return;
        }
        self.sums.success.add(total);
        self.sums.texts.fetch_add(texts as u64, Ordering::Relaxed);
        if let Some(stages) = stages {
            let took = [stages.tokenize, stages.queue, stages.execute, respond];
            for ((histogram, sum), took) in self.stages.iter().zip(&self.sums.stages).zip(took) {
                histogram.record(took);
                sum.add(took);
            }
        }
    }

    /// A batch ran, under a budget of `tokens_max`.
    pub fn batch_done(&self, texts: usize, tokens: usize, tokens_max: usize, took: Duration) {
        self.batch_texts.record(texts as f64);
        self.batch_tokens.record(tokens as f64);
        self.batch_durations.record(took);
        self.batch_fill.record(tokens as f64 / tokens_max.max(1) as f64);
        self.sums.batches.fetch_add(1, Ordering::Relaxed);
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.sums
            .last_batch_ms
            .store(since_1970.as_millis() as u64, Ordering::Relaxed);
    }

    /// Sets the token budget of a batch.
    pub fn batch_budget(&self, tokens_max: usize) {
        self.batch_tokens_max.set(tokens_max as f64);
    }

    /// Sets the queue gauges of a class.
    pub fn queue(&self, class: Class, depth: usize, tokens: usize) {
        let queue = &self.queues[class as usize];
        self.pending.increment(queue.depth.set(depth));
        queue.tokens.set(tokens);
    }

    /// The sums behind Triton's `ModelStatistics`.
    pub fn statistics(&self) -> Statistics {
        let [compute_input, queue, compute_infer, compute_output] =
            self.sums.stages.each_ref().map(Sum::read);
        Statistics {
            inference_count: self.sums.texts.load(Ordering::Relaxed),
            execution_count: self.sums.batches.load(Ordering::Relaxed),
            last_inference_ms: self.sums.last_batch_ms.load(Ordering::Relaxed),
            success: self.sums.success.read(),
            fail: self.sums.fail.read(),
            queue,
            compute_input,
            compute_infer,
            compute_output,
        }
    }

    /// Sets Triton's counters from the sums at a scrape.
    pub(super) fn publish(&self) {
        let statistics = self.statistics();
        for (counter, of) in &self.triton {
            counter.absolute(of(&statistics));
        }
    }
}
