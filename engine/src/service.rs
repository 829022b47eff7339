//! Stage 1, behind the wire: the inference service, the one entry of every protocol.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use penstock_core::{Outcome, Rejection, Reply, RequestContext, Stages};

use crate::backlog::Backlog;
use crate::drain::Drain;
use crate::gather::{Gather, Gathered};
use crate::repository::Repository;
use crate::request::{InferenceRequest, Input};
use crate::served_model::{ServedModel, Submission};
use crate::settings::Limits;
use penstock_telemetry::clock::Clock;
use penstock_telemetry::metrics::{Metrics, OutcomeLabel};

/// The rows of a request, to be written to the wire. Dropping it ends the request's `respond` stage.
pub struct InferenceResponse {
    /// The model version that scored it.
    pub served: Arc<ServedModel>,
    /// One outcome per text, in text order.
    pub rows: Vec<Outcome>,
    /// Stages of the text that finished last.
    pub stages: Stages,
    tokens: usize,
    record: Record,
}

/// Durations of a request so far.
#[derive(Clone, Copy, Debug)]
pub struct Timings {
    /// Time since it was read.
    pub total: Duration,
    /// Tokenizing, the wait for a tokenizer included.
    pub tokenize: Duration,
    /// Waiting for a batch.
    pub queue: Duration,
    /// The forward pass.
    pub execute: Duration,
    /// Token ids of all its texts.
    pub tokens: usize,
}

/// The metrics record of a request, written when it is dropped: with the response, with the rejection, or
/// with a cancelled future.
struct Record {
    served: Arc<ServedModel>,
    clock: Clock,
    context: RequestContext,
    texts: usize,
    outcome: OutcomeLabel,
    /// Stages, once the rows are complete.
    stages: Option<Stages>,
}

impl InferenceResponse {
    /// Every row's reply, or the first rejection: for protocols whose requests fail as a whole.
    pub fn all(&self) -> Result<Vec<&Reply>, &Rejection> {
        self.rows.iter().map(Result::as_ref).collect()
    }

    /// Durations so far.
    pub fn timings(&self) -> Timings {
        Timings {
            total: self.record.clock.now().since(self.record.context.received),
            tokenize: self.stages.tokenize,
            queue: self.stages.queue,
            execute: self.stages.execute,
            tokens: self.tokens,
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let now = self.clock.now();
        let respond = self
            .stages
            .map_or(Duration::ZERO, |stages| now.since(stages.finished));
        let total = now.since(self.context.received);
        let stages = self.stages.as_ref();
        let metrics = &self.served.metrics;
        metrics.request_done(
            self.context.source,
            self.context.class,
            self.outcome,
            self.texts,
            stages,
            respond,
            total,
        );
    }
}

/// The inference service: limits, models, and the drain.
pub struct InferenceService {
    repository: Arc<Repository>,
    metrics: Arc<Metrics>,
    drain: Drain,
    backlog: Arc<Backlog>,
    unready: Arc<AtomicUsize>,
    limits: Limits,
    clock: Clock,
}

/// A reason why the server is not ready; dropping it removes the reason.
pub struct Unready(Arc<AtomicUsize>);

impl Drop for Unready {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl InferenceService {
    /// A service on `repository`.
    pub fn new(
        repository: Arc<Repository>,
        metrics: Arc<Metrics>,
        limits: Limits,
        clock: Clock,
    ) -> InferenceService {
        InferenceService {
            repository,
            metrics,
            drain: Drain::default(),
            backlog: Backlog::new(limits.queue_bytes_max),
            unready: Arc::default(),
            limits,
            clock,
        }
    }

    /// The model version that answers for `name` and `version`; a refusal is counted.
    pub fn find(
        &self,
        name: &str,
        version: &str,
        context: &RequestContext,
    ) -> Result<Arc<ServedModel>, Rejection> {
        self.repository
            .find(name, version)
            .inspect_err(|rejection| self.refused(None, context, rejection))
    }

    /// Counts a request that was refused before it could be scored.
    pub fn refused(&self, served: Option<&ServedModel>, context: &RequestContext, rejection: &Rejection) {
        let RequestContext {
            source,
            class,
            received,
            ..
        } = *context;
        let outcome = OutcomeLabel::of(rejection);
        match served {
            Some(served) => {
                let took = self.clock.now().since(received);
                served
                    .metrics
                    .request_done(source, class, outcome, 0, None, Duration::ZERO, took);
            }
            None => self.metrics.unknown_model(source, class, outcome),
        }
    }

    /// Scores every input of a request. Dropping the future cancels inputs that have not run yet.
    pub async fn score(&self, request: InferenceRequest) -> Result<InferenceResponse, Rejection> {
        let served = Arc::clone(&request.served);
        let mut record = Record {
            served: Arc::clone(&served),
            clock: self.clock,
            context: request.context,
            texts: request.inputs.len(),
            outcome: OutcomeLabel::Cancelled,
            stages: None,
        };
        let scored = self.scored(request).await;
        let Gathered { rows, stages, tokens } = scored.inspect_err(|rejection| {
            record.outcome = OutcomeLabel::of(rejection);
        })?;
        let failed = rows.iter().find_map(|row| row.as_ref().err());
        record.outcome = failed.map_or(OutcomeLabel::Ok, OutcomeLabel::of);
        record.stages = Some(stages);
        Ok(InferenceResponse {
            served,
            rows,
            stages,
            tokens,
            record,
        })
    }

    async fn scored(&self, request: InferenceRequest) -> Result<Gathered, Rejection> {
        // Held until the rows are complete, so that a drain waits for it.
        let Some(_inside) = self.drain.enter() else {
            return Err(Rejection::ShuttingDown);
        };
        let InferenceRequest {
            served,
            inputs,
            context,
            room,
        } = request;
        self.check(&inputs)?;
        let left = context.deadline.map(|deadline| deadline.since(self.clock.now()));
        if left == Some(Duration::ZERO) {
            return Err(Rejection::DeadlineExceeded(
                "it had passed when the request was read",
            ));
        }
        let (sink, waiting) = Gather::new(inputs.len());
        let submission = Submission {
            inputs,
            context,
            sink,
        };
        let work = async {
            served.submit(submission, room).await?;
            Ok(waiting.await)
        };
        match left {
            None => work.await,
            // The timer answers on time; the batcher would notice only at its next batch. Dropping `work`
            // cancels the texts.
            Some(left) => tokio::time::timeout(left, work)
                .await
                .unwrap_or(Err(Rejection::DeadlineExceeded(
                    "it passed before the result was there",
                ))),
        }
    }

    fn check(&self, inputs: &[Input]) -> Result<(), Rejection> {
        let Limits {
            max_request_texts,
            max_request_bytes,
            ..
        } = self.limits;
        if inputs.is_empty() {
            return Err(Rejection::Invalid(
                "the request holds no text; send at least one".into(),
            ));
        }
        if inputs.len() > max_request_texts {
            return Err(Rejection::Invalid(format!(
                "the request holds {} texts, more than max_request_texts = {max_request_texts}; send several requests",
                inputs.len()
            )));
        }
        let bytes: usize = inputs.iter().map(Input::bytes).sum();
        if bytes > max_request_bytes {
            return Err(Rejection::Invalid(format!(
                "the request holds {bytes} bytes of text, more than max_request_bytes = {max_request_bytes}"
            )));
        }
        Ok(())
    }

    /// The clock of `RequestContext::received`.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// Limits of a request.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The models.
    pub fn repository(&self) -> &Arc<Repository> {
        &self.repository
    }

    /// The metrics.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// True when the process should not be restarted.
    pub fn is_live(&self) -> bool {
        self.drain.state().is_live()
    }

    /// True when every configured model serves, no reason against it is held and no shutdown has begun.
    pub fn is_ready(&self) -> bool {
        self.drain.state().is_ready()
            && self.unready.load(Ordering::SeqCst) == 0
            && self.repository.is_ready()
    }

    /// Marks the server as not ready until it is dropped, for a stream that cannot be read. Requests are
    /// still answered.
    pub fn unready(&self) -> Unready {
        self.unready.fetch_add(1, Ordering::SeqCst);
        Unready(Arc::clone(&self.unready))
    }

    /// Resolves when the shutdown begins: streams then stop reading, answer their records, and end.
    pub fn draining(&self) -> impl Future<Output = ()> + '_ {
        self.drain.begun()
    }

    /// Text that streams have read and that is not scored.
    pub fn backlog(&self) -> &Arc<Backlog> {
        &self.backlog
    }

    /// The drain.
    pub fn drain(&self) -> &Drain {
        &self.drain
    }
}
