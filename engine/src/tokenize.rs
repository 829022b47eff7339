//! Stage 2: text to token ids, on threads of its own. The surplus of the admission bound is returned.
//!
//! A short request of an idle served model is tokenized by its caller. Nothing could be computed meanwhile,
//! and a hand-over between sleeping threads costs as much as tokenizing.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded, select_biased};
use penstock_core::{Class, Nanos, Permit, Rejection, Request, RequestContext, Responder, Stages, TokenIds};
use penstock_models::TokenizeError;
use tracing::error;

use crate::request::Input;
use crate::served_model::ServedModel;
use penstock_telemetry::clock::Clock;

/// One admitted input with its responder.
pub struct Admitted {
    /// The input.
    pub input: Input,
    /// Its share of the admission bounds, at the upper bound of its token count.
    pub permit: Permit,
    /// Receiver of its row.
    pub responder: Responder,
}

/// Inputs of one request that one thread tokenizes together.
pub struct Job {
    /// The model version that will score them.
    pub served: Arc<ServedModel>,
    /// At least one.
    pub inputs: Vec<Admitted>,
    /// Context of the request.
    pub context: RequestContext,
}

/// The tokenizer threads, shared by all models, with one bounded queue a class.
pub struct TokenizerPool {
    interactive: Sender<Job>,
    bulk: Sender<Job>,
    clock: Clock,
}

impl TokenizerPool {
    /// Starts `threads` threads behind queues of `jobs_max` jobs. The threads end when the pool is dropped
    /// and its queues are empty.
    pub fn start(
        threads: usize,
        jobs_max: usize,
        clock: Clock,
    ) -> std::io::Result<(TokenizerPool, Vec<JoinHandle<()>>)> {
        let (interactive, interactive_jobs) = bounded(jobs_max);
        let (bulk, bulk_jobs) = bounded(jobs_max);
        let handles = (0..threads.max(1))
            .map(|i| {
                let (interactive_jobs, bulk_jobs) = (interactive_jobs.clone(), bulk_jobs.clone());
                std::thread::Builder::new()
                    .name(format!("tokenize-{i}"))
                    .spawn(move || run(&interactive_jobs, &bulk_jobs, clock))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let pool = TokenizerPool {
            interactive,
            bulk,
            clock,
        };
        Ok((pool, handles))
    }

    /// Tokenizes a job on the caller's thread.
    pub fn run_here(&self, job: Job) {
        tokenize_or_lose(job, self.clock);
    }

    /// Queues a job; if the queue is full, every text is answered `Overloaded`.
    pub fn submit(&self, job: Job) {
        let queue = match job.context.class {
            Class::Interactive => &self.interactive,
            Class::Bulk => &self.bulk,
        };
        if let Err(TrySendError::Full(job) | TrySendError::Disconnected(job)) = queue.try_send(job) {
            let bound = queue.capacity().unwrap_or(0);
            for admitted in job.inputs {
                let full = Rejection::Overloaded {
                    what: "the tokenizer queue",
                    used: bound,
                    bound,
                    unit: "jobs",
                };
                admitted.responder.answer(Err(full), Stages::default());
            }
        }
    }
}

fn run(interactive: &Receiver<Job>, bulk: &Receiver<Job>, clock: Clock) {
    let (mut interactive, mut bulk) = (interactive.clone(), bulk.clone());
    let mut open = 2;
    while open > 0 {
        let job = select_biased! {
            recv(interactive) -> job => job.inspect_err(|_| { interactive = crossbeam_channel::never(); open -= 1; }),
            recv(bulk) -> job => job.inspect_err(|_| { bulk = crossbeam_channel::never(); open -= 1; }),
        };
        if let Ok(job) = job {
            tokenize_or_lose(job, clock);
        }
    }
}

/// A panic outside the tokenizer loses the job, whose responders answer by themselves; the thread continues.
fn tokenize_or_lose(job: Job, clock: Clock) {
    let served = Arc::clone(&job.served);
    if catch_unwind(AssertUnwindSafe(|| tokenize(job, clock))).is_err() {
        error!(
            model = served.name,
            "a tokenizer thread panicked; its texts were answered as lost"
        );
    }
}

fn tokenize(job: Job, clock: Clock) {
    let Job {
        served,
        inputs,
        context,
    } = job;
    let RequestContext {
        received,
        deadline,
        truncate,
        ..
    } = context;
    for Admitted {
        input,
        mut permit,
        responder,
    } in inputs
    {
        if responder.is_cancelled() {
            responder.answer(Err(Rejection::Cancelled), stages_until(received, clock.now()));
            continue;
        }
        if deadline.is_some_and(|deadline| clock.now() >= deadline) {
            let late = Rejection::DeadlineExceeded("it passed before the text was tokenized");
            responder.answer(Err(late), stages_until(received, clock.now()));
            continue;
        }
        // The memory of a text is freed before its share of the bound.
        let tokens = match input {
            Input::Text(text) => encoded(&served.name, || served.tokenizer.encode(&text, truncate)),
            Input::TokenIds(ids) => encoded(&served.name, || served.tokenizer.check(ids, truncate)),
        };
        match tokens {
            Ok(tokens) => {
                permit.settle(tokens.len());
                let tokenized = clock.now();
                served.enqueue(Request {
                    tokens,
                    context,
                    tokenized,
                    permit,
                    responder,
                });
            }
            Err(refused) => responder.answer(Err(refused), stages_until(received, clock.now())),
        }
    }
}

/// Encodes a text. A text on which the tokenizer panics is rejected alone.
fn encoded(
    model: &str,
    encode: impl FnOnce() -> Result<TokenIds, TokenizeError>,
) -> Result<TokenIds, Rejection> {
    let Ok(encoded) = catch_unwind(AssertUnwindSafe(encode)) else {
        error!(model, "the tokenizer panicked on a text");
        let why = format!("the tokenizer of model {model} failed on this text");
        return Err(Rejection::Model(why));
    };
    encoded.map_err(|refused| Rejection::Invalid(refused.to_string()))
}

fn stages_until(received: Nanos, now: Nanos) -> Stages {
    Stages {
        tokenize: now.since(received),
        finished: now,
        ..Stages::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_the_tokenizer_panics_on_is_refused_alone() {
        let ids = |text: &str| TokenIds::new(vec![text.len() as u32]).ok_or(TokenizeError::NoTokens);
        let each = ["a", "bb", "ccc"].map(|text| {
            encoded("m", || {
                assert!(text != "bb", "on purpose");
                ids(text)
            })
        });
        assert!(each[0].is_ok() && each[2].is_ok());
        let why = "the tokenizer of model m failed on this text".to_owned();
        assert_eq!(each[1], Err(Rejection::Model(why)));
    }

    #[test]
    fn a_tokenizer_error_is_the_callers_fault() {
        let refused = encoded("m", || Err(TokenizeError::NoTokens));
        assert!(matches!(refused, Err(Rejection::Invalid(_))));
    }
}
