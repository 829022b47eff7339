//! Activity of one connection: bytes that moved, and handlers at work. Its sockets, requests and watchdog share it.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::Request;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, sleep};

use super::answers::{AnswerCounts, AnswerMemory};
use super::connection::Peer;
use super::memory::ConnectionBytes;

/// Interval of the checks while answers are unread.
const UNREAD_TICK: Duration = Duration::from_secs(1);
/// Interval of the checks while a connection drains.
const DRAIN_TICK: Duration = Duration::from_millis(50);
/// Time after which a draining connection's requests need no longer be read: they are refused in any case.
const DRAIN_READ_MAX: Duration = Duration::from_secs(5);

/// Counters of one connection.
pub struct Activity {
    read: AtomicU64,
    written: AtomicU64,
    /// Requests whose answer's head is not there yet.
    handlers: AtomicUsize,
    /// Request bodies that wait for the client.
    waiting: AtomicUsize,
    receiving: Arc<ConnectionBytes>,
    answers: AnswerCounts,
}

impl Activity {
    pub(super) fn new(answers: Arc<AnswerMemory>) -> Activity {
        Activity {
            read: AtomicU64::new(0),
            written: AtomicU64::new(0),
            handlers: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            receiving: Arc::default(),
            answers: AnswerCounts {
                all: answers,
                own: Arc::default(),
            },
        }
    }

    /// The counts of its answers.
    pub(super) fn answers(&self) -> &AnswerCounts {
        &self.answers
    }

    /// Resolves when the client reads its answers too slowly.
    pub(super) async fn unread_too_long(&self) {
        let AnswerCounts { all, own } = &self.answers;
        loop {
            own.any().await;
            let (since, written) = (Instant::now(), self.written.load(Ordering::Relaxed));
            loop {
                sleep(UNREAD_TICK).await;
                let Some((window, demanded)) = all.demand(own.bytes()) else {
                    break;
                };
                if since.elapsed() < window {
                    continue;
                }
                if self.written.load(Ordering::Relaxed) - written < demanded {
                    return;
                }
                break;
            }
        }
    }

    pub(super) fn has_read(&self, bytes: usize) {
        self.read.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn has_written(&self, bytes: usize) {
        self.written.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Counts a handler until the guard is dropped.
    pub(super) fn handler(self: &Arc<Activity>) -> Handling {
        self.handlers.fetch_add(1, Ordering::Relaxed);
        Handling(Arc::clone(self))
    }

    /// Whether a handler works while no body waits for the client.
    fn is_working(&self) -> bool {
        self.handlers.load(Ordering::Relaxed) > self.waiting.load(Ordering::Relaxed)
    }

    /// Resolves when a draining connection is abandoned by its client: no handler works, and no byte moves for
    /// `silence_max`. A client that goes on sending delays this for a while, one that reads its answers for ever.
    pub(super) async fn abandoned(&self, silence_max: Duration) {
        let start = Instant::now();
        let moved = || {
            let reads_count = start.elapsed() < DRAIN_READ_MAX;
            let read = if reads_count {
                self.read.load(Ordering::Relaxed)
            } else {
                0
            };
            (read, self.written.load(Ordering::Relaxed))
        };
        let (mut last, mut since) = (moved(), start);
        while since.elapsed() < silence_max {
            sleep(DRAIN_TICK.min(silence_max)).await;
            let now = moved();
            if now != last || self.is_working() {
                (last, since) = (now, Instant::now());
            }
        }
    }
}

/// A handler at work.
pub(super) struct Handling(Arc<Activity>);

impl Drop for Handling {
    fn drop(&mut self) {
        self.0.handlers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The body of a request, as its client sends it.
pub struct RequestBody {
    incoming: Incoming,
    activity: Arc<Activity>,
    /// Whether the last poll found nothing.
    waits: bool,
}

impl RequestBody {
    /// The request with its connection's peer and counts, and with a body that `activity` knows of.
    pub(super) fn of(
        mut request: Request<Incoming>,
        peer: &Peer,
        activity: &Arc<Activity>,
    ) -> Request<RequestBody> {
        let extensions = request.extensions_mut();
        extensions.insert(peer.clone());
        extensions.insert(Arc::clone(&activity.receiving));
        request.map(|incoming| RequestBody {
            incoming,
            activity: Arc::clone(activity),
            waits: false,
        })
    }

    fn set_waits(&mut self, waits: bool) {
        match (self.waits, waits) {
            (false, true) => self.activity.waiting.fetch_add(1, Ordering::Relaxed),
            (true, false) => self.activity.waiting.fetch_sub(1, Ordering::Relaxed),
            _ => return,
        };
        self.waits = waits;
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.incoming).poll_frame(cx);
        self.set_waits(polled.is_pending());
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        self.set_waits(false);
    }
}
