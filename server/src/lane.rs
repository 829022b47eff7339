//! One model version being served: its admission, its queue, and the two threads behind it.
//!
//! A lane is the whole line for one version. Versions and models share the tokenizer threads and the
//! compute pool, never a queue: a slow model cannot hold another one's texts back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crossbeam_channel::{Sender, TrySendError, bounded};
use penstock_core::{
    Admission, AdmissionBounds, BatchPolicy, Batcher, Class, CostModel, Nanos, Permit, Rejection, Request,
    Responder, Sink,
};
use penstock_models::{Loaded, ModelSpec, TextTokenizer};
use tokio::sync::Notify;

use crate::clock::Clock;
use crate::config::{Batching, Limits};
use crate::executor::Executor;
use crate::metrics::{BusyMeter, ModelMetrics};
use crate::scheduler::{self, Wires};
use crate::tokenize::{Job, Text, TokenizerPool};

/// Texts that one tokenizer thread takes in one go: few enough that a large request spreads over all
/// threads, enough that the hand-over costs little.
const JOB_TEXTS: usize = 16;

/// What an ingest stage does when the queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// Answer `Overloaded`: somebody waits for this request alone.
    Refuse,
    /// Wait, and read no further meanwhile: back-pressure on a stream.
    Wait,
}

/// The texts of one request, on their way into a lane.
pub struct Submission {
    /// In row order.
    pub texts: Vec<String>,
    /// Of the request.
    pub class: Class,
    /// When the request is no longer worth computing.
    pub deadline: Option<Nanos>,
    /// Whether a text longer than the model's window is cut or refused.
    pub truncate: bool,
    /// When the request was read.
    pub received: Nanos,
    /// Where the rows go.
    pub sink: Arc<dyn Sink>,
}

/// One model version being served.
pub struct Lane {
    /// The model's name.
    pub name: String,
    /// The version, as the v2 protocol names it.
    pub version: String,
    /// What the model is.
    pub spec: Arc<ModelSpec>,
    /// Its metrics.
    pub metrics: Arc<ModelMetrics>,
    /// Its batching.
    pub policy: BatchPolicy,
    /// Its tokenizer.
    pub tokenizer: TextTokenizer,
    admission: Arc<Admission>,
    room: Arc<Notify>,
    requests: Sender<Request>,
    pool: Arc<TokenizerPool>,
    alive: Arc<AtomicBool>,
}

/// What a lane shares with the others.
#[derive(Clone)]
pub struct Shared {
    /// The tokenizer threads.
    pub pool: Arc<TokenizerPool>,
    /// The bounds of each lane's queue.
    pub limits: Limits,
    /// The clock.
    pub clock: Clock,
    /// The device's busy time.
    pub busy: BusyMeter,
}

/// The threads of a lane. They end by themselves once the last `Arc<Lane>` is gone and the queue is dry.
pub struct LaneThreads {
    scheduler: JoinHandle<()>,
    executor: JoinHandle<()>,
}

impl LaneThreads {
    /// Waits for both.
    pub fn join(self) {
        // A thread that panicked has said so on stderr, and its requests were answered by their drop.
        let _ = self.scheduler.join();
        let _ = self.executor.join();
    }
}

/// Turns false when its thread ends, however it ends.
struct AliveGuard(Arc<AtomicBool>);

impl Drop for AliveGuard {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

impl Lane {
    /// Starts the threads of a loaded model, which prepares `prefetch` batches while one runs.
    pub fn open(
        name: &str,
        version: &str,
        loaded: Loaded,
        policy: BatchPolicy,
        prefetch: usize,
        shared: Shared,
        metrics: Arc<ModelMetrics>,
    ) -> Result<(Arc<Lane>, LaneThreads), Rejection> {
        let Loaded { spec, tokenizer, model } = loaded;
        let Shared { pool, limits, clock, busy } = shared;
        let refuse = |e: &dyn std::fmt::Display| Rejection::Invalid(format!("model {name}: {e}"));
        let room = Arc::new(Notify::new());
        let freed = Arc::clone(&room);
        let bounds = AdmissionBounds {
            tokens_max: limits.queue_tokens_max,
            bytes_max: limits.queue_bytes_max,
            texts_max: limits.queue_texts_max,
        };
        let admission = Admission::with_release(bounds, Box::new(move || freed.notify_waiters()))
            .map_err(|e| refuse(&e))?;

        let (requests, requests_out) = bounded(limits.queue_texts_max);
        let credits = prefetch + 1;
        let (batches, batches_out) = bounded(credits);
        let (ran, ran_out) = bounded(credits);
        let alive = Arc::new(AtomicBool::new(true));
        let executor = Executor {
            name: name.to_owned(),
            tokens_max: policy.tokens_max(),
            metrics: Arc::clone(&metrics),
            busy,
            clock,
        };
        let executor = spawn(name, "execute", move || executor.run(model, &batches_out, &ran))?;
        let guard = AliveGuard(Arc::clone(&alive));
        let batcher = Batcher::new(policy.clone(), CostModel::default());
        let publish = queue_gauges(Arc::clone(&admission), Arc::clone(&metrics));
        let wires = Wires { requests: requests_out, ran: ran_out, batches };
        let scheduler = spawn(name, "schedule", move || {
            let _guard = guard;
            scheduler::run(batcher, wires, credits, clock, publish);
        })?;
        let lane = Lane {
            name: name.to_owned(),
            version: version.to_owned(),
            spec,
            metrics,
            policy,
            tokenizer,
            admission,
            room,
            requests,
            pool,
            alive,
        };
        Ok((Arc::new(lane), LaneThreads { scheduler, executor }))
    }

    /// False once the lane's threads are gone: the model must be loaded again.
    pub fn is_alive(&self) -> bool {
        self.alive.load(Ordering::SeqCst)
    }

    /// Admits all texts, or none, and hands them to the tokenizers. A request larger than the whole
    /// queue enters piece by piece as room comes free. Rows are answered at the submission's sink.
    pub async fn submit(self: &Arc<Self>, submission: Submission, room: Room) -> Result<(), Rejection> {
        let Submission { texts, class, deadline, truncate, received, sink } = submission;
        let mut row = 0_u32;
        let mut texts = texts.into_iter().peekable();
        while texts.peek().is_some() {
            let piece = self.piece(&mut texts);
            // The first piece decides whether the request enters; what follows waits for its room.
            let permits = if row == 0 && room == Room::Refuse {
                self.admission.admit_all(class, &piece.bounds)?
            } else {
                self.admit_waiting(class, &piece.bounds).await?
            };
            let mut pairs = piece.texts.into_iter().zip(permits).peekable();
            while pairs.peek().is_some() {
                let texts = pairs.by_ref().take(JOB_TEXTS).map(|(text, permit)| {
                    let responder = Responder::new(Arc::clone(&sink), row);
                    row += 1;
                    Text { text, permit, responder }
                });
                let texts = texts.collect();
                self.pool.submit(Job { lane: Arc::clone(self), texts, class, deadline, truncate, received });
            }
        }
        Ok(())
    }

    /// As many of the next texts as the queue could hold if it were empty.
    fn piece(&self, texts: &mut std::iter::Peekable<std::vec::IntoIter<String>>) -> Piece {
        let bounds = self.admission.bounds();
        let mut piece = Piece { texts: Vec::with_capacity(texts.len()), bounds: Vec::with_capacity(texts.len()) };
        let (mut tokens, mut bytes) = (0, 0);
        while let Some(text) = texts.peek() {
            let (t, b) = (self.tokenizer.tokens_bound(text.len()), text.len());
            let fits = tokens + t <= bounds.tokens_max
                && bytes + b <= bounds.bytes_max
                && piece.texts.len() < bounds.texts_max;
            if !fits && !piece.texts.is_empty() {
                break;
            }
            (tokens, bytes) = (tokens + t, bytes + b);
            piece.bounds.push((t, b));
            piece.texts.extend(texts.next());
        }
        piece
    }

    async fn admit_waiting(&self, class: Class, bounds: &[(usize, usize)]) -> Result<Vec<Permit>, Rejection> {
        loop {
            let freed = self.room.notified();
            tokio::pin!(freed);
            // Armed before the attempt: room that comes free in between is not missed.
            freed.as_mut().enable();
            match self.admission.admit_all(class, bounds) {
                Err(Rejection::Overloaded { .. }) if self.is_alive() => freed.await,
                admitted => return admitted,
            }
        }
    }

    /// Takes a tokenized request into the queue.
    pub(crate) fn enqueue(&self, request: Request) {
        // The queue has a place for every permit there is, so `Full` cannot happen; a scheduler that
        // is gone can, and its requests are answered.
        if let Err(TrySendError::Full(request) | TrySendError::Disconnected(request)) =
            self.requests.try_send(request)
        {
            let now = request.tokenized;
            request.refuse(Rejection::Lost, now);
        }
    }
}

struct Piece {
    texts: Vec<String>,
    /// Token bound and bytes of each text.
    bounds: Vec<(usize, usize)>,
}

/// The checked limits of a model's batches.
pub fn policy(batching: &Batching, window: usize) -> Result<BatchPolicy, penstock_core::PolicyError> {
    BatchPolicy::new(
        batching.tokens_max,
        batching.texts_max,
        batching.bulk_age_max,
        window,
        batching.queue_delay_max,
        batching.interactive_target,
    )
}

fn queue_gauges(admission: Arc<Admission>, metrics: Arc<ModelMetrics>) -> impl FnMut() + Send {
    move || {
        for class in Class::ALL {
            metrics.queue(class, admission.depth(class), admission.tokens(class));
        }
    }
}

fn spawn(
    name: &str,
    what: &str,
    run: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, Rejection> {
    std::thread::Builder::new()
        .name(format!("{what}-{name}"))
        .spawn(run)
        .map_err(|e| Rejection::Model(format!("model {name}: no thread could be started: {e}")))
}
