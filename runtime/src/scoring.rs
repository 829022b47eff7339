//! Scores chunks of records through the service, like any other request, and returns their results. The
//! simulation has a scorer of its own.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, Sender, bounded};
use penstock_core::{Class, Nanos, Outcome, Rejection, RequestContext, Source};
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::chunk::{Chunk, HeaderOptions, Judged, Taken};
use crate::record_codec::RecordCodec;
use crate::retry_queue::RetryId;
use penstock_engine::request::{InferenceRequest, Input};
use penstock_engine::served_model::{ServedModel, WhenFull};
use penstock_engine::service::InferenceService;
use penstock_telemetry::metrics::DeadReason;

/// Text that tests whether a model works at all.
const PROBE: &str = "penstock";

/// Attempts of a text without enough memory: at least ten seconds, because the waits grow.
const MEMORY_WAITS: u32 = 8;

/// Result of a chunk.
pub struct Finished {
    /// Records with an answer.
    pub judged: Vec<Judged>,
    /// Retry id of the chunk, if it was queued before.
    pub tried: Option<RetryId>,
    /// Records to retry, and the reason why they were not scored.
    pub held: Option<(Chunk, Rejection)>,
    /// Records without a result, because their task died.
    pub lost: usize,
}

/// Scores chunks beside the pump.
pub trait Scorer {
    /// Submits a chunk. It comes back in every case.
    fn submit(&mut self, chunk: Chunk);

    /// Chunks that are out.
    fn out(&self) -> usize;

    /// Whether so many more chunks may go out.
    fn has_room(&self, chunks: usize) -> bool;

    /// Cancels all chunks that are out; they come back without further compute.
    fn give_up(&mut self);

    /// A finished chunk; waits at most `timeout`.
    fn next(&mut self, timeout: Duration) -> Option<Finished>;
}

/// The pump's end of scoring by the service.
pub struct ServiceScorer {
    service: Arc<InferenceService>,
    answers: Arc<RecordCodec>,
    runtime: Handle,
    done: Sender<Finished>,
    finished: Receiver<Finished>,
    out: usize,
    chunks_max: usize,
    /// Number of cancellations of all chunks.
    given_up: watch::Sender<u64>,
}

impl ServiceScorer {
    /// A scorer with at most `chunks_max` chunks out at once.
    pub fn new(
        service: Arc<InferenceService>,
        answers: Arc<RecordCodec>,
        runtime: Handle,
        chunks_max: usize,
    ) -> ServiceScorer {
        let (done, finished) = bounded(chunks_max);
        ServiceScorer {
            service,
            answers,
            runtime,
            done,
            finished,
            out: 0,
            chunks_max,
            given_up: watch::Sender::new(0),
        }
    }
}

impl Scorer for ServiceScorer {
    fn submit(&mut self, chunk: Chunk) {
        self.out += 1;
        let (service, answers) = (Arc::clone(&self.service), Arc::clone(&self.answers));
        let mut duty = Duty {
            count: chunk.records.len(),
            chunk,
            judged: Vec::new(),
            why: Rejection::Lost,
            done: self.done.clone(),
        };
        let mut given_up = self.given_up.subscribe();
        self.runtime.spawn(async move {
            tokio::select! {
                // An error means that the pump is gone.
                _ = given_up.changed() => {}
                () = duty.fulfil(&service, &answers) => {}
            }
        });
    }

    fn out(&self) -> usize {
        self.out
    }

    fn has_room(&self, chunks: usize) -> bool {
        self.out + chunks <= self.chunks_max
    }

    fn give_up(&mut self) {
        self.given_up.send_modify(|times| *times += 1);
    }

    fn next(&mut self, timeout: Duration) -> Option<Finished> {
        let finished = if timeout.is_zero() {
            self.finished.try_recv().ok()
        } else {
            self.finished.recv_timeout(timeout).ok()
        };
        self.out -= usize::from(finished.is_some());
        finished
    }
}

/// Guard that returns a chunk, even if its task dies or is dropped with the runtime.
struct Duty {
    count: usize,
    chunk: Chunk,
    judged: Vec<Judged>,
    why: Rejection,
    done: Sender<Finished>,
}

impl Drop for Duty {
    fn drop(&mut self) {
        let tried = self.chunk.held;
        let lost = self.count - self.judged.len() - self.chunk.records.len();
        let held = (!self.chunk.records.is_empty()).then(|| (self.chunk.take(), self.why.clone()));
        let judged = std::mem::take(&mut self.judged);
        // The channel has a place for every chunk; an error means that the pump is gone.
        let _ = self.done.try_send(Finished {
            judged,
            tried,
            held,
            lost,
        });
    }
}

impl Duty {
    async fn fulfil(&mut self, service: &InferenceService, answers: &RecordCodec) {
        let texts = std::mem::take(&mut self.chunk.texts);
        let (served, rows) = score(service, answers, &self.chunk, texts).await;
        let failed = |row: &Outcome| matches!(row, Err(why) if is_of_the_model(why));
        // If the model fails on some texts only, those are to blame. If it fails on all, the model may be
        // broken, and no record is to blame.
        let works = rows.iter().any(Result::is_ok)
            || (rows.iter().any(failed) && probe(service, answers, &self.chunk).await);
        self.judged.reserve(rows.len());
        let mut held = Vec::new();
        let mut records = std::mem::take(&mut self.chunk.records).into_iter();
        for (row, mut record) in rows.into_iter().zip(records.by_ref()) {
            let why = match (row, &served) {
                (Ok(reply), Some(served)) => {
                    self.judged.push(answers.scored(served, &reply, record));
                    continue;
                }
                (Ok(_), None) => Rejection::Lost,
                (Err(why), _) => why,
            };
            if let Some(reason) = self.blames(&why, works, &mut record, answers) {
                self.judged.push(answers.dead(record, reason, &why.to_string()));
            } else {
                self.why = why;
                held.push(record);
            }
        }
        self.chunk.records = held;
    }

    /// Dead-letter reason of a rejected record; `None` if the record is not at fault and is retried.
    fn blames(
        &self,
        why: &Rejection,
        works: bool,
        record: &mut Taken,
        answers: &RecordCodec,
    ) -> Option<DeadReason> {
        let reason = DeadReason::of(why)?;
        let blamed = match reason {
            DeadReason::Model | DeadReason::NotFinite => {
                works && !may_pass(why, &mut record.waits_for_memory)
            }
            // The route's own model is configured, so a missing one may come back.
            DeadReason::UnknownModel => *self.chunk.wish.model != *answers.route().model,
            _ => true,
        };
        blamed.then_some(reason)
    }
}

/// Whether a text that fails alone may be scored later, because others may hold the memory for a while. Waits
/// for other reasons do not count.
fn may_pass(why: &Rejection, waits_for_memory: &mut u32) -> bool {
    let may = matches!(why, Rejection::NoMemory(_)) && *waits_for_memory < MEMORY_WAITS;
    *waits_for_memory += u32::from(may);
    may
}

/// Whether the model, or its device, failed on a text.
fn is_of_the_model(why: &Rejection) -> bool {
    matches!(
        why,
        Rejection::Model(_) | Rejection::NotFinite { .. } | Rejection::NoMemory(_)
    )
}

async fn score(
    service: &InferenceService,
    answers: &RecordCodec,
    chunk: &Chunk,
    texts: Vec<String>,
) -> (Option<Arc<ServedModel>>, Vec<Outcome>) {
    let count = texts.len();
    let HeaderOptions {
        model,
        class,
        deadline,
    } = &chunk.wish;
    let context = RequestContext {
        class: *class,
        truncate: answers.route().truncate,
        ..RequestContext::new(Source::Kafka, chunk.received)
    };
    let context = context.due(deadline.map(|deadline| on_clock(service, deadline)));
    let scored = async {
        let request = InferenceRequest {
            served: service.find(model, answers.version(model), &context)?,
            inputs: texts.into_iter().map(Input::Text).collect(),
            context,
            room: WhenFull::Block,
        };
        service.score(request).await
    };
    match scored.await {
        Ok(mut scored) => (Some(Arc::clone(&scored.served)), std::mem::take(&mut scored.rows)),
        Err(why) => (None, vec![Err(why); count]),
    }
}

/// A deadline in milliseconds since 1970 on the service's clock; a past one is now.
fn on_clock(service: &InferenceService, deadline: i64) -> Nanos {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let left = deadline.saturating_sub(since_1970.as_millis() as i64).max(0);
    service.clock().now() + Duration::from_millis(left as u64)
}

/// Whether the model scores anything at all.
async fn probe(service: &InferenceService, answers: &RecordCodec, chunk: &Chunk) -> bool {
    let mut probe = Chunk::empty(HeaderOptions {
        class: Class::Bulk,
        deadline: None,
        ..chunk.wish.clone()
    });
    probe.received = service.clock().now();
    let (_, rows) = score(service, answers, &probe, vec![PROBE.to_owned()]).await;
    rows.iter().all(Result::is_ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_waits_for_memory_count_against_a_text_that_wants_memory() {
        let (mut waits, short) = (0, Rejection::NoMemory("short".into()));
        assert!(!may_pass(&Rejection::Model("broken".into()), &mut waits));
        assert_eq!(waits, 0);
        for _ in 0..MEMORY_WAITS {
            assert!(may_pass(&short, &mut waits));
        }
        assert!(!may_pass(&short, &mut waits));
    }
}
