//! Starting and shutting down without losing an accepted request: the server's state, how many requests
//! are inside, and when none is left.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use penstock_core::lifecycle::ServerState;
use tokio::sync::{Notify, watch};

/// The server's state and the requests inside it.
pub struct Drain {
    state: watch::Sender<ServerState>,
    inside: AtomicUsize,
    empty: Notify,
}

/// Proof that one request is inside; dropping it lets the drain go on.
pub struct Inside<'a> {
    drain: &'a Drain,
}

impl Default for Drain {
    fn default() -> Drain {
        Drain {
            state: watch::Sender::default(),
            inside: AtomicUsize::new(0),
            empty: Notify::new(),
        }
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

    /// Goes on to `next`: `Ready` once the models serve, `Draining` to make `enter` refuse, `Stopped`
    /// when nothing is left. A step out of order is none: a server told to stop while it started never
    /// becomes ready.
    pub fn go(&self, next: ServerState) {
        self.state.send_if_modified(|state| state.enter(next).is_ok());
    }

    /// Where the server stands.
    pub fn state(&self) -> ServerState {
        *self.state.borrow()
    }

    /// True once the drain has begun.
    pub fn is_draining(&self) -> bool {
        matches!(self.state(), ServerState::Draining | ServerState::Stopped)
    }

    /// Resolves when the drain begins.
    pub async fn begun(&self) {
        let mut state = self.state.subscribe();
        let begun = |state: &ServerState| matches!(state, ServerState::Draining | ServerState::Stopped);
        // The sender lives in `self`: the wait cannot fail while `self` is borrowed.
        let _ = state.wait_for(begun).await;
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
        drain.go(ServerState::Draining);
        assert!(drain.enter().is_none(), "nothing enters a draining server");
        assert!(!drain.emptied(Duration::from_millis(5)).await);
        drop(inside);
        assert!(drain.emptied(Duration::from_secs(5)).await);
        drain.begun().await;
    }

    #[test]
    fn a_server_told_to_stop_while_it_starts_never_becomes_ready() {
        let drain = Drain::default();
        drain.go(ServerState::Draining);
        drain.go(ServerState::Ready);
        assert_eq!(drain.state(), ServerState::Draining);
    }
}
