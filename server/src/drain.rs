//! Shutting down without losing an accepted request: how many are inside, and when none is left.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};

/// The server's one switch from serving to draining.
pub struct Drain {
    draining: watch::Sender<bool>,
    inside: AtomicUsize,
    empty: Notify,
}

/// Proof that one request is inside; dropping it lets the drain go on.
pub struct Inside<'a> {
    drain: &'a Drain,
}

impl Default for Drain {
    fn default() -> Drain {
        Drain { draining: watch::Sender::new(false), inside: AtomicUsize::new(0), empty: Notify::new() }
    }
}

impl Drain {
    /// Counts a request in, or `None` once the drain has begun.
    pub fn enter(&self) -> Option<Inside<'_>> {
        // Counted before the switch is read: a drain that begins in between sees this request.
        self.inside.fetch_add(1, Ordering::SeqCst);
        let inside = Inside { drain: self };
        (!self.is_draining()).then_some(inside)
    }

    /// Begins the drain: `enter` refuses from now on.
    pub fn begin(&self) {
        self.draining.send_replace(true);
    }

    /// True once the drain has begun.
    pub fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// Resolves when the drain begins.
    pub async fn begun(&self) {
        let mut draining = self.draining.subscribe();
        // The sender lives in `self`: the wait cannot fail while `self` is borrowed.
        let _ = draining.wait_for(|begun| *begun).await;
    }

    /// Waits until nothing is inside; false where `timeout` passed first.
    pub async fn emptied(&self, timeout: Duration) -> bool {
        let wait = async {
            loop {
                let notified = self.empty.notified();
                tokio::pin!(notified);
                notified.as_mut().enable();
                if self.inside.load(Ordering::SeqCst) == 0 {
                    return;
                }
                notified.await;
            }
        };
        tokio::time::timeout(timeout, wait).await.is_ok()
    }

    /// How many requests are inside.
    pub fn inside(&self) -> usize {
        self.inside.load(Ordering::SeqCst)
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        if self.drain.inside.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.drain.empty.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_drain_waits_for_what_is_inside_and_refuses_what_comes() {
        let drain = Drain::default();
        let inside = drain.enter().expect("serving");
        drain.begin();
        assert!(drain.enter().is_none(), "nothing enters a draining server");
        assert!(!drain.emptied(Duration::from_millis(5)).await);
        drop(inside);
        assert!(drain.emptied(Duration::from_secs(5)).await);
        drain.begun().await;
    }
}
