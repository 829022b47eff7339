//! Requests whose answers a test can inspect.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::batching::admission::{Admission, AdmissionBounds};
use crate::batching::context::{RequestContext, Source};
use crate::batching::reply::{Outcome, Rejection, Responder, Sink, Stages};
use crate::batching::request::{Class, Request, TokenIds};
use crate::time::Nanos;

/// Receiver of a test's answers, each row at most once.
#[derive(Default)]
pub(crate) struct Answers {
    rows: Mutex<BTreeMap<u32, (Outcome, Stages)>>,
    cancelled: AtomicBool,
}

impl Sink for Answers {
    fn answer(&self, row: u32, outcome: Outcome, stages: Stages) {
        let before = self.rows.lock().unwrap().insert(row, (outcome, stages));
        assert!(before.is_none(), "row {row} was answered twice");
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.load(SeqCst)
    }
}

impl Answers {
    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, SeqCst);
    }

    pub(crate) fn count(&self) -> usize {
        self.rows.lock().unwrap().len()
    }

    pub(crate) fn get(&self, row: u32) -> Option<(Outcome, Stages)> {
        self.rows.lock().unwrap().get(&row).cloned()
    }

    pub(crate) fn rejection(&self, row: u32) -> Option<Rejection> {
        self.get(row).and_then(|(outcome, _)| outcome.err())
    }
}

/// Admission with bounds that no test reaches.
pub(crate) fn wide_open() -> Arc<Admission> {
    let most = 1 << 40;
    Admission::new(AdmissionBounds {
        tokens_max: most,
        bytes_max: most,
        texts_max: most,
    })
    .unwrap()
}

/// A text of `len` tokens, `at_ms` milliseconds after the start. Every token is the row.
pub(crate) fn request(answers: &Arc<Answers>, row: u32, class: Class, len: usize, at_ms: u64) -> Request {
    let at = millis(at_ms);
    Request {
        tokens: TokenIds::new(vec![row; len]).unwrap(),
        context: RequestContext {
            class,
            ..RequestContext::new(Source::Grpc, at)
        },
        tokenized: at,
        permit: wide_open().admit(class, len, 0).unwrap(),
        responder: Responder::new(Arc::clone(answers) as Arc<dyn Sink>, row),
    }
}

pub(crate) fn millis(ms: u64) -> Nanos {
    Nanos(0) + Duration::from_millis(ms)
}
