//! Memory of unread answers: bytes that were computed and that clients have not read, over all ports.
//!
//! An answer is counted from its first piece until the connection has written it. The count decides three things.
//! A connection with much unread must read at a minimum pace. While half of the memory is taken, so must every
//! connection, and within a second. While all of it is taken, further requests are refused before they are computed.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::Notify;

use penstock_core::Rejection;
use penstock_telemetry::metrics::UnreadBytes;

/// Unread bytes of a connection that may wait as long as the client likes, as for a stream that pauses.
pub(super) const PATIENT_BYTES_MAX: usize = 1 << 20;
/// Time in which a client must read some of what waits for it.
const WINDOW: Duration = Duration::from_secs(10);
/// The same while memory is short.
const WINDOW_SHORT: Duration = Duration::from_secs(1);
/// Fewest bytes a second of a client that reads.
const BYTES_PER_SECOND: u64 = 16 * 1024;

/// Memory of all unread answers.
pub struct AnswerMemory {
    bytes: AtomicUsize,
    bytes_max: usize,
    metric: UnreadBytes,
}

impl AnswerMemory {
    /// Memory of `bytes_max` bytes, shown by `metric`.
    pub fn new(bytes_max: usize, metric: UnreadBytes) -> Arc<AnswerMemory> {
        Arc::new(AnswerMemory {
            bytes: AtomicUsize::new(0),
            bytes_max,
            metric,
        })
    }

    /// Reason why no further request is answered; `None` while there is room.
    pub(super) fn refusal(&self) -> Option<Rejection> {
        let used = self.bytes.load(Ordering::Relaxed);
        (used >= self.bytes_max).then_some(Rejection::Overloaded {
            what: "the memory for answers that clients have not read",
            used,
            bound: self.bytes_max,
            unit: "bytes",
        })
    }

    /// Whether every client must read at once.
    fn is_short(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) >= self.bytes_max / 2
    }

    /// The demand on a connection with `unread` bytes: within a time, this many must be written. `None` for one
    /// that may wait.
    pub(super) fn demand(&self, unread: usize) -> Option<(Duration, u64)> {
        if unread == 0 {
            return None;
        }
        let window = if self.is_short() {
            WINDOW_SHORT
        } else if unread > PATIENT_BYTES_MAX {
            WINDOW
        } else {
            return None;
        };
        Some((window, (BYTES_PER_SECOND * window.as_secs()).min(unread as u64)))
    }
}

/// Unread bytes of one connection.
#[derive(Default)]
pub(super) struct Unread {
    bytes: AtomicUsize,
    /// Wakes the connection's watchdog when there is something to watch.
    grown: Notify,
}

impl Unread {
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Resolves once bytes are unread.
    pub async fn any(&self) {
        while self.bytes() == 0 {
            self.grown.notified().await;
        }
    }
}

/// Both counts, as one answer changes them.
#[derive(Clone)]
pub(super) struct AnswerCounts {
    pub all: Arc<AnswerMemory>,
    pub own: Arc<Unread>,
}

impl AnswerCounts {
    /// The same bytes, counted until they are dropped.
    fn count(&self, bytes: Bytes) -> Bytes {
        if bytes.is_empty() {
            return bytes;
        }
        self.all.bytes.fetch_add(bytes.len(), Ordering::Relaxed);
        self.all.metric.add(bytes.len());
        if self.own.bytes.fetch_add(bytes.len(), Ordering::Relaxed) == 0 {
            self.own.grown.notify_one();
        }
        Bytes::from_owner(Counted {
            bytes,
            counts: self.clone(),
        })
    }
}

struct Counted {
    bytes: Bytes,
    counts: AnswerCounts,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let AnswerCounts { all, own } = &self.counts;
        own.bytes.fetch_sub(self.bytes.len(), Ordering::Relaxed);
        all.bytes.fetch_sub(self.bytes.len(), Ordering::Relaxed);
        all.metric.remove(self.bytes.len());
    }
}

/// The body of an answer, whose pieces are counted.
pub struct CountedAnswer<B: Body> {
    body: B,
    counts: AnswerCounts,
    /// The first piece, made before the client asks for it: a client that grants no window never does.
    first: Option<Result<Frame<Bytes>, B::Error>>,
}

impl<B: Body<Data = Bytes> + Unpin> CountedAnswer<B> {
    /// Counts `body` from its first piece on.
    pub(super) fn new(mut body: B, counts: AnswerCounts, cx: &mut Context<'_>) -> CountedAnswer<B> {
        let mut first = None;
        if !body.is_end_stream()
            && let Poll::Ready(Some(frame)) = Pin::new(&mut body).poll_frame(cx)
        {
            first = Some(frame.map(|frame| frame.map_data(|data| counts.count(data))));
        }
        CountedAnswer { body, counts, first }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for CountedAnswer<B>
where
    B::Error: Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = &mut *self;
        if let Some(first) = this.first.take() {
            return Poll::Ready(Some(first));
        }
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(|data| this.counts.count(data)))))
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.body.size_hint();
        if let Some(data) = self
            .first
            .as_ref()
            .and_then(|first| first.as_ref().ok()?.data_ref())
        {
            let first = data.len() as u64;
            let (lower, upper) = (hint.lower() + first, hint.upper().map(|upper| upper + first));
            hint = SizeHint::new();
            hint.set_lower(lower);
            if let Some(upper) = upper {
                hint.set_upper(upper);
            }
        }
        hint
    }
}

#[cfg(test)]
mod tests;
