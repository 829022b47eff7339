//! Bytes of text that streams have read and that are not scored yet, bounded over all streams together.
//!
//! A stream waits for room in a queue instead of being refused, so the text it has read is outside admission.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Bytes of text held by all streams.
pub struct Backlog {
    bytes: AtomicUsize,
    bytes_max: usize,
    freed: Notify,
}

/// A share of the backlog; dropping it gives the room back.
pub struct Held {
    backlog: Arc<Backlog>,
    bytes: usize,
}

impl Backlog {
    /// An empty backlog that is full at `bytes_max`.
    pub fn new(bytes_max: usize) -> Arc<Backlog> {
        Arc::new(Backlog {
            bytes: AtomicUsize::new(0),
            bytes_max,
            freed: Notify::new(),
        })
    }

    /// True when no stream should read on.
    pub fn is_full(&self) -> bool {
        self.bytes.load(Ordering::SeqCst) >= self.bytes_max
    }

    /// Counts a message that was read. The message may exceed the bound, because it was already on its way;
    /// its own size is bounded elsewhere.
    pub fn hold(self: &Arc<Self>, bytes: usize) -> Held {
        self.bytes.fetch_add(bytes, Ordering::SeqCst);
        Held {
            backlog: Arc::clone(self),
            bytes,
        }
    }

    /// Resolves when a stream may read on.
    pub async fn room(self: Arc<Self>) {
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            // Enabled before the check, so that a notification in between is not missed.
            freed.as_mut().enable();
            if !self.is_full() {
                return;
            }
            freed.await;
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let before = self.backlog.bytes.fetch_sub(self.bytes, Ordering::SeqCst);
        let max = self.backlog.bytes_max;
        if before >= max && before - self.bytes < max {
            self.backlog.freed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_full_backlog_holds_readers_until_something_is_dropped() {
        let backlog = Backlog::new(10);
        let small = backlog.hold(4);
        Arc::clone(&backlog).room().await;
        let large = backlog.hold(100);
        let waiting = Arc::clone(&backlog).room();
        tokio::pin!(waiting);
        assert!(
            tokio::time::timeout(Duration::from_millis(5), &mut waiting)
                .await
                .is_err()
        );
        drop(small);
        assert!(
            tokio::time::timeout(Duration::from_millis(5), &mut waiting)
                .await
                .is_err()
        );
        drop(large);
        waiting.await;
        assert!(!backlog.is_full());
    }
}
