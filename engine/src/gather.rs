//! Collects the rows of one request from all batches they ran in, and wakes the waiting task.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use parking_lot::Mutex;
use penstock_core::{Outcome, Rejection, Sink, Stages};
use tokio::sync::oneshot;

/// All rows of one request, in text order.
#[derive(Debug)]
pub struct Gathered {
    /// One outcome per text.
    pub rows: Vec<Outcome>,
    /// Stages of the text that finished last, which set the duration of the request.
    pub stages: Stages,
    /// Token ids of all texts.
    pub tokens: usize,
}

/// Waits for a request's rows. Dropping it before they are complete cancels the rest.
pub struct Waiting {
    gather: Arc<Gather>,
    complete: oneshot::Receiver<Gathered>,
}

/// The sink of one request.
pub struct Gather {
    state: Mutex<State>,
    cancelled: AtomicBool,
}

struct State {
    rows: Vec<Outcome>,
    missing: usize,
    stages: Stages,
    tokens: usize,
    complete: Option<oneshot::Sender<Gathered>>,
}

impl Gather {
    /// A sink for `texts` rows, and the future of their outcomes.
    pub fn new(texts: usize) -> (Arc<Gather>, Waiting) {
        let (sender, complete) = oneshot::channel();
        let gather = Arc::new(Gather {
            state: Mutex::new(State {
                rows: vec![Err(Rejection::Lost); texts],
                missing: texts,
                stages: Stages::default(),
                tokens: 0,
                complete: Some(sender),
            }),
            cancelled: AtomicBool::new(false),
        });
        let waiting = Waiting {
            gather: Arc::clone(&gather),
            complete,
        };
        (gather, waiting)
    }
}

impl Sink for Gather {
    fn answer(&self, row: u32, outcome: Outcome, stages: Stages) {
        let mut state = self.state.lock();
        // A row out of range is a bug of the caller; it must not spoil the other rows.
        if let Some(slot) = state.rows.get_mut(row as usize) {
            *slot = outcome;
        }
        if stages.finished >= state.stages.finished {
            state.stages = stages;
        }
        state.tokens += stages.tokens;
        state.missing = state.missing.saturating_sub(1);
        if state.missing == 0
            && let Some(complete) = state.complete.take()
        {
            let rows = std::mem::take(&mut state.rows);
            let (stages, tokens) = (state.stages, state.tokens);
            drop(state);
            // An error means that the receiver was dropped, so the rows are dropped too.
            let _ = complete.send(Gathered { rows, stages, tokens });
        }
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}

impl Future for Waiting {
    type Output = Gathered;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Gathered> {
        // The sender lives in the gather that `self` holds, and is taken only to send, so the channel cannot
        // close.
        Pin::new(&mut self.complete).poll(cx).map(|gathered| {
            gathered.unwrap_or_else(|_| Gathered {
                rows: Vec::new(),
                stages: Stages::default(),
                tokens: 0,
            })
        })
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.gather.cancelled.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use penstock_core::{Nanos, Reply, Responder};

    fn finished_at(ns: u64) -> Stages {
        Stages {
            finished: Nanos(ns),
            tokens: 2,
            ..Stages::default()
        }
    }

    #[tokio::test]
    async fn rows_come_back_in_text_order_with_the_stages_of_the_last() {
        let (gather, waiting) = Gather::new(2);
        let sink: Arc<dyn Sink> = gather;
        Responder::new(Arc::clone(&sink), 1).answer(Ok(Reply::Embedding(vec![1.0])), finished_at(9));
        Responder::new(sink, 0).answer(Ok(Reply::Embedding(vec![0.0])), finished_at(5));
        let gathered = waiting.await;
        assert_eq!(gathered.rows[0], Ok(Reply::Embedding(vec![0.0])));
        assert_eq!(gathered.rows[1], Ok(Reply::Embedding(vec![1.0])));
        assert_eq!(gathered.stages.finished, Nanos(9));
        assert_eq!(gathered.tokens, 4);
    }

    #[tokio::test]
    async fn a_dropped_responder_still_completes_the_request() {
        let (gather, waiting) = Gather::new(2);
        let sink: Arc<dyn Sink> = gather;
        drop(Responder::new(Arc::clone(&sink), 0));
        Responder::new(sink, 1).answer(Ok(Reply::Embedding(vec![1.0])), finished_at(1));
        assert_eq!(waiting.await.rows[0], Err(Rejection::Lost));
    }

    #[test]
    fn dropping_the_wait_cancels() {
        let (gather, waiting) = Gather::new(1);
        assert!(!gather.is_cancelled());
        drop(waiting);
        assert!(gather.is_cancelled());
    }
}
