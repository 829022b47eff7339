//! The rig of these tests: a real tokenizer and served model around a controllable model.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use penstock_core::{Class, Outcome, PackedTokens, Rejection, Reply, RequestContext, Source};
use penstock_engine::device_lost::DeviceLost;
use penstock_engine::executor::DeviceSlot;
use penstock_engine::gather::{Gather, Gathered, Waiting};
use penstock_engine::request::Input;
use penstock_engine::served_model::{
    self, ModelThreads, Replicas, ServedModel, Shared, Submission, WhenFull,
};
use penstock_engine::settings::{Batching, Limits};
use penstock_engine::tokenize::TokenizerPool;
use penstock_models::{Device, LoadOptions, Loaded, Model, ModelError};
use penstock_telemetry::clock::Clock;
use penstock_telemetry::metrics::Metrics;

/// A family folder with a small real tokenizer.
fn folder() -> PathBuf {
    PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../models/tests/families/bert-embedding-mean"
    ))
}

/// `n` texts of different lengths.
pub fn texts(n: usize) -> Vec<String> {
    (0..n).map(|i| "a ".repeat(1 + i % 7)).collect()
}

/// The first component of an embedding: with these models, the text's length in tokens.
pub fn first(row: &Outcome) -> f32 {
    match row {
        Ok(Reply::Embedding(values)) => values[0],
        other => panic!("expected an embedding, got {other:?}"),
    }
}

pub fn lengths(batch: &PackedTokens) -> Vec<Reply> {
    batch
        .lengths()
        .map(|length| Reply::Embedding(vec![length as f32]))
        .collect()
}

/// A model that blocks until it is released, and counts its texts.
#[derive(Clone, Default)]
pub struct Gate {
    state: Arc<(Mutex<GateState>, Condvar)>,
    /// Texts that reached the model.
    pub texts: Arc<AtomicUsize>,
}

#[derive(Default)]
struct GateState {
    open: bool,
    arrived: bool,
}

impl Gate {
    pub fn shut() -> Gate {
        Gate::default()
    }

    pub fn open() -> Gate {
        let gate = Gate::default();
        gate.release();
        gate
    }

    pub fn release(&self) {
        self.state.0.lock().open = true;
        self.state.1.notify_all();
    }

    /// Blocks until a batch waits at the gate.
    pub fn wait_for_batch(&self) {
        let mut state = self.state.0.lock();
        while !state.arrived {
            self.state.1.wait(&mut state);
        }
    }
}

impl Model for Gate {
    fn forward(&mut self, batch: &PackedTokens) -> Result<Vec<Reply>, ModelError> {
        let mut state = self.state.0.lock();
        state.arrived = true;
        self.state.1.notify_all();
        while !state.open {
            self.state.1.wait(&mut state);
        }
        self.texts.fetch_add(batch.sequences(), Ordering::SeqCst);
        Ok(lengths(batch))
    }

    fn window(&self) -> usize {
        usize::MAX
    }
}

/// A model that panics once.
#[derive(Default)]
pub struct Poisoned {
    spent: AtomicBool,
}

impl Model for Poisoned {
    fn forward(&mut self, batch: &PackedTokens) -> Result<Vec<Reply>, ModelError> {
        assert!(self.spent.swap(true, Ordering::SeqCst), "poisoned on purpose");
        Ok(lengths(batch))
    }

    fn window(&self) -> usize {
        usize::MAX
    }
}

/// A model that fails on every batch that holds a text of so many tokens, by a panic or by an error.
pub struct FailsAt {
    pub tokens: usize,
    pub panics: bool,
}

impl Model for FailsAt {
    fn forward(&mut self, batch: &PackedTokens) -> Result<Vec<Reply>, ModelError> {
        if !batch.lengths().any(|length| length == self.tokens) {
            return Ok(lengths(batch));
        }
        assert!(!self.panics, "failed on purpose");
        Err(ModelError::Batch("failed on purpose".into()))
    }

    fn window(&self) -> usize {
        usize::MAX
    }
}

/// A model that computes a NaN for every text of more than so many tokens, in any batch.
pub struct NanAbove(pub usize);

impl Model for NanAbove {
    fn forward(&mut self, batch: &PackedTokens) -> Result<Vec<Reply>, ModelError> {
        let value = |length| if length > self.0 { f32::NAN } else { length as f32 };
        Ok(batch
            .lengths()
            .map(|length| Reply::Embedding(vec![value(length)]))
            .collect())
    }

    fn window(&self) -> usize {
        usize::MAX
    }
}

/// A served model with its threads.
pub struct Rig {
    pub served: Arc<ServedModel>,
    pub clock: Clock,
    pub fault: DeviceLost,
    pub metrics: Metrics,
    threads: ModelThreads,
    tokenizers: Vec<JoinHandle<()>>,
}

impl Rig {
    pub fn with_gate(gate: Gate, limit: impl FnOnce(&mut Limits)) -> Rig {
        Rig::with(Box::new(gate), limit)
    }

    /// Without prefetch: texts that arrive while a batch runs stay in the batcher.
    pub fn with(model: Box<dyn Model>, limit: impl FnOnce(&mut Limits)) -> Rig {
        let mut limits = limits();
        limit(&mut limits);
        Rig::start(vec![model], None, limits, 0)
    }

    /// Executors of the same model, each with a batch prefetched.
    pub fn with_executors(models: Vec<Box<dyn Model>>) -> Rig {
        Rig::start(models, None, limits(), 1)
    }

    /// A preemptible model, and the model for urgent batches.
    pub fn with_urgent(model: Box<dyn Model>, urgent: Box<dyn Model>) -> Rig {
        Rig::start(vec![model], Some(urgent), limits(), 0)
    }

    fn start(
        models: Vec<Box<dyn Model>>,
        urgent: Option<Box<dyn Model>>,
        limits: Limits,
        prefetch: usize,
    ) -> Rig {
        let options = LoadOptions {
            check_parity: false,
            ..LoadOptions::default()
        };
        let Loaded { spec, tokenizer, .. } =
            penstock_models::load(&folder(), &options).expect("a family folder");
        let clock = Clock::start();
        let (pool, tokenizers) = TokenizerPool::start(2, 1024, clock).expect("threads");
        let metrics = Metrics::new(clock);
        let fault = DeviceLost::default();
        let seat = DeviceSlot {
            device: "cpu".into(),
            busy: metrics.device_busy("cpu"),
            fault: fault.clone(),
        };
        let shared = Shared {
            pool: Arc::new(pool),
            limits,
            clock,
            fault: fault.clone(),
            wrap: None,
        };
        let copies = Replicas {
            spec,
            tokenizer,
            device: Device::default(),
            models: models.into_iter().map(|model| (model, seat.clone())).collect(),
            urgent: urgent.map(|model| (model, seat)),
        };
        let window = copies.tokenizer.max_length();
        let policy = served_model::policy(&batching(), window, window).expect("a batch holds a text");
        let model = metrics.model("rig", "1");
        let (served, threads) =
            ServedModel::open("rig", "1", copies, policy, Some(prefetch), shared, model).expect("threads");
        Rig {
            served,
            clock,
            fault,
            metrics,
            threads,
            tokenizers,
        }
    }

    /// Number of tokens of a text.
    pub fn tokens(&self, text: &str) -> usize {
        self.served.tokenizer.encode(text, true).expect("a text").len()
    }

    pub async fn submit(
        &self,
        texts: Vec<String>,
        room: WhenFull,
        timeout: Option<Duration>,
    ) -> Result<Waiting, Rejection> {
        self.submit_class(Class::Interactive, texts, room, timeout).await
    }

    pub async fn submit_class(
        &self,
        class: Class,
        texts: Vec<String>,
        room: WhenFull,
        timeout: Option<Duration>,
    ) -> Result<Waiting, Rejection> {
        let (submission, waiting) = self.submission(texts);
        let deadline = timeout.map(|timeout| submission.context.received + timeout);
        let context = RequestContext {
            class,
            deadline,
            ..submission.context
        };
        let submission = Submission {
            context,
            ..submission
        };
        self.served.submit(submission, room).await.map(|()| waiting)
    }

    pub async fn submit_as(&self, texts: Vec<String>, truncate: bool) -> Gathered {
        let (mut submission, waiting) = self.submission(texts);
        submission.context.truncate = truncate;
        self.served
            .submit(submission, WhenFull::Reject)
            .await
            .expect("admitted");
        waiting.await
    }

    fn submission(&self, texts: Vec<String>) -> (Submission, Waiting) {
        let (sink, waiting) = Gather::new(texts.len());
        let submission = Submission {
            inputs: texts.into_iter().map(Input::Text).collect(),
            context: RequestContext::new(Source::Grpc, self.clock.now()),
            sink,
        };
        (submission, waiting)
    }

    /// Ends every thread; a served model that cannot end would hang here.
    pub fn close(self) {
        drop(self.served);
        self.threads.join();
        for tokenizer in self.tokenizers {
            tokenizer.join().expect("a tokenizer thread ends");
        }
    }
}

fn limits() -> Limits {
    Limits {
        max_request_texts: 8192,
        max_request_bytes: 64 << 20,
        stream_in_flight_max: 256,
        queue_texts_max: 1024,
        queue_tokens_max: 1 << 20,
        queue_bytes_max: 1 << 28,
        connections_max: 16,
        connections_per_address_max: None,
        streams_max: 100,
    }
}

fn batching() -> Batching {
    Batching {
        tokens_max: Some(4096),
        texts_max: 64,
        bulk_age_max: Duration::from_millis(100),
        queue_delay_max: Duration::ZERO,
        interactive_target: Duration::from_millis(50),
        prefetch: None,
        executors: 1,
    }
}
