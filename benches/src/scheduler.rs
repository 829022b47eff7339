//! The data path without a model: queue, scheduler thread, executor thread and responders as in the server,
//! around a model that answers at once. Texts enter as the tokenizers would hand them over.

use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use crossbeam_channel::{Sender, bounded};
use hdrhistogram::Histogram;
use penstock_core::{
    Admission, AdmissionBounds, BatchPolicy, Batcher, Class, CostModel, Nanos, Outcome, PackedTokens, Reply,
    Request, RequestContext, Responder, Sink, Source, Stages, TokenIds,
};
use penstock_engine::device_lost::DeviceLost;
use penstock_engine::executor::{DeviceSlot, Executor};
use penstock_engine::scheduler::{Wires, run};
use penstock_models::{Model, ModelError};
use penstock_telemetry::clock::Clock;
use penstock_telemetry::metrics::{Metrics, ModelMetrics, OutcomeLabel};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::Serialize;

use crate::workload;

/// The longest text.
const WINDOW: usize = 256;
/// The server's defaults: texts and tokens in the queue, batches prepared beside the running one.
const QUEUE_TEXTS_MAX: usize = 16_384;
const QUEUE_TOKENS_MAX: usize = 1 << 20;
const PREFETCH: usize = 1;
const TEXTS_MAX: usize = 512;

/// Answers at once.
struct Instantly;

impl Model for Instantly {
    fn forward(&mut self, batch: &PackedTokens) -> Result<Vec<Reply>, ModelError> {
        Ok((0..batch.sequences())
            .map(|_| Reply::Embedding(vec![0.0; 8]))
            .collect())
    }

    fn window(&self) -> usize {
        WINDOW
    }
}

/// Counts the answers, and each text's time from its entry.
struct Answers {
    clock: Clock,
    latency: Mutex<Histogram<u64>>,
    answered: AtomicUsize,
    failed: AtomicUsize,
}

impl Sink for Answers {
    fn answer(&self, _row: u32, outcome: Outcome, stages: Stages) {
        // `finished` lies those stages after the text entered.
        let entered = stages.finished - (stages.tokenize + stages.queue + stages.execute);
        let took = self.clock.now().since(entered).as_nanos();
        let mut latency = self.latency.lock().unwrap_or_else(PoisonError::into_inner);
        latency.saturating_record(u64::try_from(took).unwrap_or(u64::MAX));
        drop(latency);
        self.failed
            .fetch_add(usize::from(outcome.is_err()), Ordering::Relaxed);
        self.answered.fetch_add(1, Ordering::Release);
    }

    fn is_cancelled(&self) -> bool {
        false
    }
}

/// The running line.
struct Line {
    clock: Clock,
    admission: Arc<Admission>,
    requests: Sender<Request>,
    answers: Arc<Answers>,
    lengths: Vec<usize>,
    threads: [JoinHandle<()>; 2],
}

/// Results of a run.
#[derive(Clone, Debug, Serialize)]
pub struct MeasuredLine {
    /// Texts answered.
    pub texts: usize,
    /// Texts answered with an error.
    pub failed: usize,
    /// Texts a second, from the first entry to the last answer.
    pub texts_per_second: f64,
    /// Median time from the entry into the queue to the answer.
    pub p50_us: f64,
    /// 99 %.
    pub p99_us: f64,
    /// 99.9 %.
    pub p999_us: f64,
}

/// Keeps the queue full until `texts` are answered.
pub fn flood(tokens_max: usize, texts: usize) -> Result<MeasuredLine> {
    let line = Line::start(tokens_max)?;
    let start = Instant::now();
    for row in 0..texts {
        while !line.enter(row)? {
            std::thread::yield_now();
        }
    }
    line.finish(texts, start)
}

/// Poisson arrivals at `rate` a second for `seconds`.
pub fn trickle(tokens_max: usize, rate: f64, seconds: f64) -> Result<MeasuredLine> {
    let line = Line::start(tokens_max)?;
    let mut rng = StdRng::seed_from_u64(11);
    let start = Instant::now();
    let end = start + Duration::from_secs_f64(seconds);
    let (mut at, mut row) = (start, 0);
    loop {
        at += Duration::from_secs_f64(-(1.0 - rng.random::<f64>()).ln() / rate);
        if at >= end {
            break;
        }
        // A sleep of a few microseconds lasts some fifty, so arrivals come in small bursts, which are harder
        // than single ones. A spinning thread would take a core from the data path.
        let wait = at.saturating_duration_since(Instant::now());
        if !wait.is_zero() {
            std::thread::sleep(wait);
        }
        while !line.enter(row)? {
            std::thread::yield_now();
        }
        row += 1;
    }
    line.finish(row, start)
}

impl Line {
    fn start(tokens_max: usize) -> Result<Line> {
        let clock = Clock::start();
        let metrics = Metrics::new(clock);
        let model_metrics = metrics.model("instantly", "1");
        let bounds = AdmissionBounds {
            tokens_max: QUEUE_TOKENS_MAX,
            bytes_max: 1 << 28,
            texts_max: QUEUE_TEXTS_MAX,
        };
        let admission = Admission::new(bounds)?;
        let policy = BatchPolicy::new(
            tokens_max,
            TEXTS_MAX,
            Duration::from_secs(1),
            WINDOW,
            Duration::ZERO,
            None,
        )?;
        let held_max = PREFETCH + 1;
        let (requests, requests_out) = bounded(QUEUE_TEXTS_MAX);
        let (batches, batches_out) = bounded(held_max);
        let (reports, reports_out) = bounded(held_max + 1);
        let executor = Executor {
            name: "instantly".into(),
            number: 0,
            tokens_max,
            metrics: Arc::clone(&model_metrics),
            seat: DeviceSlot {
                device: "cpu".into(),
                busy: metrics.device_busy("cpu"),
                fault: DeviceLost::default(),
            },
            clock,
        };
        let executor = spawn("execute", move || {
            executor.run(Box::new(Instantly), &batches_out, &reports);
        })?;
        let batcher = Batcher::new(policy, CostModel::default(), PREFETCH);
        let wires = Wires {
            requests: requests_out,
            reports: reports_out,
            batches: vec![batches],
            urgent: false,
        };
        let publish = gauges(Arc::clone(&admission), model_metrics);
        let scheduler = spawn("schedule", move || {
            drop(run("instantly", batcher, wires, held_max, clock, publish));
        })?;
        let latency =
            Histogram::new_with_bounds(1, 60_000_000_000, 3).map_err(|e| anyhow!("histogram: {e}"))?;
        let answers = Answers {
            clock,
            latency: Mutex::new(latency),
            answered: AtomicUsize::new(0),
            failed: AtomicUsize::new(0),
        };
        Ok(Line {
            clock,
            admission,
            requests,
            answers: Arc::new(answers),
            lengths: workload::lengths(4096, &mut StdRng::seed_from_u64(workload::SEED)),
            threads: [scheduler, executor],
        })
    }

    /// Puts one text into the queue; false if it is full.
    fn enter(&self, row: usize) -> Result<bool> {
        let tokens = self.lengths[row % self.lengths.len()];
        let Ok(permit) = self.admission.admit(Class::Interactive, tokens, 0) else {
            return Ok(false);
        };
        let tokens = TokenIds::new(vec![7; tokens]).context("a text without tokens")?;
        let responder = Responder::new(Arc::clone(&self.answers) as Arc<dyn Sink>, row as u32);
        let now = self.clock.now();
        let request = Request {
            tokens,
            context: RequestContext::new(Source::Grpc, now),
            tokenized: now,
            permit,
            responder,
        };
        self.requests
            .try_send(request)
            .context("the queue has a place for every permit")?;
        Ok(true)
    }

    fn finish(self, texts: usize, start: Instant) -> Result<MeasuredLine> {
        while self.answers.answered.load(Ordering::Acquire) < texts {
            std::thread::yield_now();
        }
        let seconds = start.elapsed().as_secs_f64();
        drop(self.requests);
        for thread in self.threads {
            thread.join().map_err(|_| anyhow!("a thread of the line died"))?;
        }
        let latency = self
            .answers
            .latency
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let quantile = |q| latency.value_at_quantile(q) as f64 / 1e3;
        Ok(MeasuredLine {
            texts,
            failed: self.answers.failed.load(Ordering::Relaxed),
            texts_per_second: texts as f64 / seconds,
            p50_us: quantile(0.5),
            p99_us: quantile(0.99),
            p999_us: quantile(0.999),
        })
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name(name.into())
        .spawn(work)
        .with_context(|| format!("cannot start thread {name}"))
}

fn gauges(admission: Arc<Admission>, metrics: Arc<ModelMetrics>) -> impl FnMut(usize) + Send {
    move |_| {
        for class in Class::ALL {
            metrics.queue(class, admission.depth(class), admission.tokens(class));
        }
    }
}

/// Cost of the metrics, in nanoseconds of one thread.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct MetricsCost {
    /// Cost of a request.
    pub request_ns: f64,
    /// Cost of a batch: its shape, its time, the device's busy time, the queue's gauges.
    pub batch_ns: f64,
}

/// Times the metrics calls of the data path.
pub fn metrics_cost(calls: u32) -> MetricsCost {
    let clock = Clock::start();
    let metrics = Metrics::new(clock);
    let (model, busy) = (metrics.model("instantly", "1"), metrics.device_busy("cpu"));
    let took = |i: u32| Duration::from_nanos(u64::from(i) * 977 % 50_000_000);
    let start = Instant::now();
    for i in 0..calls {
        record_request(&model, took(black_box(i)));
    }
    let request_ns = start.elapsed().as_nanos() as f64 / f64::from(calls);
    let start = Instant::now();
    for i in 0..calls {
        record_batch(&model, &busy, took(black_box(i)));
    }
    MetricsCost {
        request_ns,
        batch_ns: start.elapsed().as_nanos() as f64 / f64::from(calls),
    }
}

/// Records one request of one text.
pub fn record_request(model: &ModelMetrics, took: Duration) {
    let stages = Stages {
        tokenize: took / 8,
        queue: took / 4,
        execute: took / 2,
        finished: Nanos(1),
        ..Stages::default()
    };
    let respond = took / 8;
    model.request_done(
        Source::Grpc,
        Class::Interactive,
        OutcomeLabel::Ok,
        1,
        Some(&stages),
        respond,
        took,
    );
}

/// Records one batch.
pub fn record_batch(model: &ModelMetrics, busy: &penstock_telemetry::metrics::BusyMeter, took: Duration) {
    busy.add(took);
    model.batch_done(47, 2048, 8192, took);
    for class in Class::ALL {
        model.queue(class, 100, 4300);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_is_answered() {
        let flooded = flood(2048, 20_000).unwrap();
        assert_eq!((flooded.texts, flooded.failed), (20_000, 0));
        let trickled = trickle(2048, 2_000.0, 0.2).unwrap();
        assert!(trickled.texts > 200 && trickled.failed == 0, "{trickled:?}");
    }
}
