//! One served model version: its admission, its queue, and its threads.
//!
//! Versions and models share the tokenizer threads and the compute pool, but never a queue. A slow model
//! therefore cannot delay another model's texts.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use penstock_core::{
    Admission, AdmissionBounds, BatchPolicy, Batcher, Class, CostModel, Permit, PolicyError, Rejection,
    Request, RequestContext, Responder, Sink,
};
use penstock_models::{Device, Loaded, Model, ModelSpec, TextTokenizer};
use tokio::sync::Notify;

use crate::device_lost::DeviceLost;
use crate::executor::{DeviceSlot, Executor};
use crate::request::Input;
use crate::scheduler::{self, Wires};
use crate::settings::{Batching, Limits};
use crate::tokenize::{Admitted, Job, TokenizerPool};
use penstock_telemetry::clock::Clock;
use penstock_telemetry::metrics::ModelMetrics;

/// Texts of one tokenizer job: few enough to spread a large request over all threads, enough to make the
/// hand-over cheap.
const JOB_TEXTS: usize = 16;

/// Bytes of a request that its caller tokenizes itself; it occupies an io thread for some 100 µs.
const QUICK_BYTES_MAX: usize = 1024;

/// A request larger than the queue enters in pieces of this share. A piece as large as the queue would wait
/// for an empty queue, which under steady load never comes.
const PIECE_SHARE: usize = 8;

/// Behaviour of an ingest stage when the queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// Answer `Overloaded`: a client waits for this request alone.
    Reject,
    /// Wait without reading on: back-pressure on a stream.
    Block,
}

/// The inputs of one request, on their way into a served model.
pub struct Submission {
    /// In row order.
    pub inputs: Vec<Input>,
    /// Context of the request.
    pub context: RequestContext,
    /// Receiver of the rows.
    pub sink: Arc<dyn Sink>,
}

/// One model version being served.
pub struct ServedModel {
    /// The model's name.
    pub name: String,
    /// The version, as the v2 protocol names it.
    pub version: String,
    /// Specification of the model.
    pub spec: Arc<ModelSpec>,
    /// Its metrics.
    pub metrics: Arc<ModelMetrics>,
    /// Its batching.
    pub policy: BatchPolicy,
    /// Its tokenizer.
    pub tokenizer: TextTokenizer,
    /// Its device; the first one of several.
    pub device: Device,
    admission: Arc<Admission>,
    room: Arc<Notify>,
    /// Locks of waiters for room: one waiter of each class at a time, in order. Otherwise each returned
    /// permit would wake them all.
    turns: [tokio::sync::Mutex<()>; Class::ALL.len()],
    requests: Sender<Request>,
    pool: Arc<TokenizerPool>,
    alive: Arc<AtomicBool>,
}

/// Replaces a loaded model: tests and benches make it fail, or answer at once.
pub type Wrap = Arc<dyn Fn(Box<dyn Model>) -> Box<dyn Model> + Send + Sync>;

/// State that served models share.
#[derive(Clone)]
pub struct Shared {
    /// The tokenizer threads.
    pub pool: Arc<TokenizerPool>,
    /// The bounds of each served model's queue.
    pub limits: Limits,
    /// The clock.
    pub clock: Clock,
    /// Receiver of the report that a device is lost.
    pub fault: DeviceLost,
    /// Replacement of models in tests.
    pub wrap: Option<Wrap>,
}

/// A loaded version, with a replica of the model for each executor.
pub struct Replicas {
    /// Its specification.
    pub spec: Arc<ModelSpec>,
    /// Its tokenizer.
    pub tokenizer: TextTokenizer,
    /// Its first device.
    pub device: Device,
    /// The models, each with its place on a device.
    pub models: Vec<(Box<dyn Model>, DeviceSlot)>,
    /// A model for urgent batches only, on a device with preemption.
    pub urgent: Option<(Box<dyn Model>, DeviceSlot)>,
}

impl Replicas {
    /// Replicas from one folder, one load for each device; `None` without a load. All executors on a device
    /// share its `DeviceSlot`.
    pub fn of(loaded: Vec<(Loaded, DeviceSlot)>, device: Device) -> Option<Replicas> {
        let (mut what, mut models, mut urgent) = (None, Vec::new(), None);
        for (loaded, seat) in loaded {
            let each = std::iter::once(loaded.model).chain(loaded.replicas);
            models.extend(each.map(|model| (model, seat.clone())));
            urgent = urgent.or(loaded.urgent.map(|model| (model, seat)));
            what = what.or(Some((loaded.spec, loaded.tokenizer)));
        }
        what.map(|(spec, tokenizer)| Replicas {
            spec,
            tokenizer,
            device,
            models,
            urgent,
        })
    }
}

/// The threads of a served model. They end once the last `Arc<ServedModel>` is dropped and the queue is
/// empty.
pub struct ModelThreads {
    scheduler: JoinHandle<()>,
    executors: Vec<JoinHandle<()>>,
}

impl ModelThreads {
    /// Waits for all threads.
    pub fn join(self) {
        // A panic of the thread is on stderr, and its requests were answered when they were dropped.
        let _ = self.scheduler.join();
        self.executors
            .into_iter()
            .for_each(|executor| drop(executor.join()));
    }
}

/// Becomes false when its thread ends, even by a panic.
struct AliveGuard(Arc<AtomicBool>);

impl Drop for AliveGuard {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

impl ServedModel {
    /// Starts the threads of a loaded model. Each replica prepares `prefetch` batches while one runs. The
    /// default is none if it computes on the threads that would prepare them, and one on a GPU.
    pub fn open(
        name: &str,
        version: &str,
        copies: Replicas,
        policy: BatchPolicy,
        prefetch: Option<usize>,
        shared: Shared,
        metrics: Arc<ModelMetrics>,
    ) -> Result<(Arc<ServedModel>, ModelThreads), Rejection> {
        let Replicas {
            spec,
            tokenizer,
            device,
            mut models,
            urgent,
        } = copies;
        let Shared {
            pool, limits, clock, ..
        } = shared;
        let refuse = |e: &dyn std::fmt::Display| Rejection::Invalid(format!("model {name}: {e}"));
        let (room, alive) = (Arc::new(Notify::new()), Arc::new(AtomicBool::new(true)));
        let admission = gate(&limits, tokenizer.max_length(), Arc::clone(&room)).map_err(|e| refuse(&e))?;
        let (requests, requests_out) = bounded(limits.queue_texts_max);
        let on_device = models.iter_mut().any(|(model, _)| model.pipelined().is_some());
        let prefetch = prefetch.unwrap_or(usize::from(on_device));
        let held_max = prefetch + 1;
        let looks = urgent.as_ref().map_or(0, |(model, _)| model.preemption_points());
        // Room for a report of each batch that an executor may hold, and for its last report.
        let (reports, reports_out) = bounded((held_max + 1) * (models.len() + 1));
        let (mut batches, mut executors) = (Vec::new(), Vec::new());
        for (number, (kind, (model, seat))) in named(models, urgent).enumerate() {
            let executor = Executor {
                name: name.to_owned(),
                number,
                tokens_max: policy.tokens_max(),
                metrics: Arc::clone(&metrics),
                seat,
                clock,
            };
            let (to, batches_out) = bounded(held_max);
            let reports = reports.clone();
            batches.push(to);
            executors.push(spawn(name, kind, move || {
                executor.run(model, &batches_out, &reports);
            })?);
        }
        // Only the executors hold senders now, so the scheduler notices when the last one ends.
        drop(reports);
        let guard = AliveGuard(Arc::clone(&alive));
        let gone = Arc::clone(&metrics);
        let batcher = Batcher::new(policy.clone(), CostModel::new(), prefetch).with_preemption_points(looks);
        let publish = queue_gauges(Arc::clone(&admission), Arc::clone(&metrics), policy.tokens_max());
        let wires = Wires {
            requests: requests_out,
            reports: reports_out,
            batches,
            urgent: looks > 0,
        };
        let model = name.to_owned();
        let scheduler = spawn(name, "schedule", move || {
            let left = scheduler::run(&model, batcher, wires, held_max, clock, publish);
            drop(guard);
            refuse_all(&left, clock);
            empty_gauges(&gone);
        })?;
        let served = ServedModel {
            name: name.to_owned(),
            version: version.to_owned(),
            spec,
            metrics,
            policy,
            tokenizer,
            device,
            admission,
            room,
            turns: Default::default(),
            requests,
            pool,
            alive,
        };
        Ok((Arc::new(served), ModelThreads { scheduler, executors }))
    }

    /// False once the served model's threads are gone: the model must be loaded again.
    pub fn is_alive(&self) -> bool {
        self.alive.load(Ordering::SeqCst)
    }

    /// Admits all texts, or none, and hands them to the tokenizers. A request larger than the whole
    /// queue enters piece by piece as room comes free. Rows are answered at the submission's sink.
    pub async fn submit(self: &Arc<Self>, submission: Submission, room: WhenFull) -> Result<(), Rejection> {
        let Submission {
            inputs,
            context,
            sink,
        } = submission;
        let class = context.class;
        let bounds: Vec<TextBound> = inputs.iter().map(|input| self.bound(input)).collect();
        let most = self.admission.bounds().bytes_max;
        if let Some((_, bytes)) = bounds.iter().find(|(_, bytes)| *bytes > most) {
            return Err(Rejection::Invalid(format!(
                "a text of {bytes} bytes is larger than the whole queue, queue_bytes_max = {most}"
            )));
        }
        let pieces = if room == WhenFull::Reject {
            self.pieces(&bounds, 1)
        } else {
            self.pieces(&bounds, PIECE_SHARE)
        };
        // Larger than the queue: small pieces, because a large one would wait for an empty queue.
        let pieces = if pieces.len() > 1 {
            self.pieces(&bounds, PIECE_SHARE)
        } else {
            pieces
        };
        let here = self.is_quick(&bounds);
        let mut inputs = inputs.into_iter().zip(0_u32..);
        for piece in pieces {
            // The first piece decides whether a request enters; later pieces wait for room.
            let permits = if piece.start == 0 && room == WhenFull::Reject {
                self.admission.admit_all(class, &bounds[piece])?
            } else {
                self.admit_waiting(class, &bounds[piece]).await?
            };
            let mut permits = permits.into_iter().peekable();
            while permits.peek().is_some() {
                let admitted = permits.by_ref().take(JOB_TEXTS).zip(inputs.by_ref());
                let admitted = admitted.map(|(permit, (input, row))| {
                    let responder = Responder::new(Arc::clone(&sink), row);
                    Admitted {
                        input,
                        permit,
                        responder,
                    }
                });
                let job = Job {
                    served: Arc::clone(self),
                    inputs: admitted.collect(),
                    context,
                };
                if here {
                    self.pool.run_here(job);
                } else {
                    self.pool.submit(job);
                }
            }
        }
        Ok(())
    }

    fn bound(&self, input: &Input) -> TextBound {
        let tokens = match input {
            Input::Text(text) => self.tokenizer.tokens_bound(text.len()),
            Input::TokenIds(ids) => ids.len().min(self.tokenizer.max_length()),
        };
        (tokens, input.bytes())
    }

    /// True for a short request of an idle model: its caller tokenizes it at once.
    fn is_quick(&self, bounds: &[TextBound]) -> bool {
        let bytes: usize = bounds.iter().map(|(_, bytes)| bytes).sum();
        let is_idle = || Class::ALL.iter().all(|&class| self.admission.depth(class) == 0);
        bounds.len() <= JOB_TEXTS && bytes <= QUICK_BYTES_MAX && is_idle()
    }

    /// Cuts a request into runs of texts that each fit `1 / share` of the queue, or hold one text.
    fn pieces(&self, texts: &[TextBound], share: usize) -> Vec<Range<usize>> {
        let bounds = self.admission.bounds();
        let mut pieces = Vec::with_capacity(1);
        let (mut start, mut tokens, mut bytes) = (0, 0, 0);
        for (i, &(t, b)) in texts.iter().enumerate() {
            let fits = tokens + t <= bounds.tokens_max / share
                && bytes + b <= bounds.bytes_max / share
                && i - start < (bounds.texts_max / share).max(1);
            if !fits && i > start {
                pieces.push(start..i);
                (start, tokens, bytes) = (i, 0, 0);
            }
            (tokens, bytes) = (tokens + t, bytes + b);
        }
        pieces.push(start..texts.len());
        pieces
    }

    async fn admit_waiting(&self, class: Class, bounds: &[TextBound]) -> Result<Vec<Permit>, Rejection> {
        let _turn = self.turns[class as usize].lock().await;
        loop {
            let freed = self.room.notified();
            tokio::pin!(freed);
            // Enabled before the attempt, so that a notification in between is not missed.
            freed.as_mut().enable();
            match self.admission.admit_all(class, bounds) {
                Err(Rejection::Overloaded { .. }) if self.is_alive() => freed.await,
                admitted => return admitted,
            }
        }
    }

    /// Takes a tokenized request into the queue.
    pub(crate) fn enqueue(&self, request: Request) {
        // The queue has a place for every permit, so it is never full. A scheduler that has ended is
        // possible; its requests are answered.
        if let Err(TrySendError::Full(request) | TrySendError::Disconnected(request)) =
            self.requests.try_send(request)
        {
            let now = request.tokenized;
            request.refuse(Rejection::Lost, now);
        }
    }
}

/// The models with the suffixes of their thread names; the model of urgent batches is last.
fn named<T>(models: Vec<T>, urgent: Option<T>) -> impl Iterator<Item = (&'static str, T)> {
    let execute = models.into_iter().map(|model| ("execute", model));
    execute.chain(urgent.map(|model| ("urgent", model)))
}

/// Refuses requests that arrive after the last executor has ended, until the served model is dropped.
fn refuse_all(requests: &Receiver<Request>, clock: Clock) {
    for request in requests {
        request.refuse(Rejection::Lost, clock.now());
    }
}

/// Upper bound of a text's tokens, and its bytes.
type TextBound = (usize, usize);

/// The checked limits of a model's batches; `tokens` is the default, or the longest text if that is larger.
pub fn policy(batching: &Batching, window: usize, tokens: usize) -> Result<BatchPolicy, PolicyError> {
    BatchPolicy::new(
        batching.tokens_max.unwrap_or(tokens.max(window)),
        batching.texts_max,
        batching.bulk_age_max,
        window,
        batching.queue_delay_max,
        Some(batching.interactive_target),
    )
}

/// The admission of a queue; it notifies `freed` when room comes free.
fn gate(limits: &Limits, window: usize, freed: Arc<Notify>) -> Result<Arc<Admission>, PolicyError> {
    let bounds = AdmissionBounds {
        tokens_max: limits.queue_tokens_max,
        bytes_max: limits.queue_bytes_max,
        texts_max: limits.queue_texts_max,
    };
    bounds.check_window(window)?;
    Admission::with_release(bounds, Box::new(move || freed.notify_waiters()))
}

/// Publishes the token budget now, and returns the function that publishes it with the queue's figures.
fn queue_gauges(
    admission: Arc<Admission>,
    metrics: Arc<ModelMetrics>,
    tokens_max: usize,
) -> impl FnMut(usize) + Send {
    metrics.batch_budget(tokens_max);
    move |tokens_max| {
        metrics.batch_budget(tokens_max);
        for class in Class::ALL {
            metrics.queue(class, admission.depth(class), admission.tokens(class));
        }
    }
}

/// Sets the gauges to zero: the last batch may be answered after the last reading of the queue.
fn empty_gauges(metrics: &ModelMetrics) {
    for class in Class::ALL {
        metrics.queue(class, 0, 0);
    }
    metrics.batch_budget(0);
}

fn spawn(name: &str, what: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Rejection> {
    std::thread::Builder::new()
        .name(format!("{what}-{name}"))
        .spawn(run)
        .map_err(|e| Rejection::Model(format!("model {name}: no thread could be started: {e}")))
}
