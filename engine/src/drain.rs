//! Start and shutdown without losing an accepted request: the server's state and the number of requests in
//! flight.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use penstock_core::lifecycle::ServerState;
use tokio::sync::{Notify, watch};

/// The server's state and its number of requests in flight.
pub struct Drain {
    state: watch::Sender<ServerState>,
    inside: AtomicUsize,
    empty: Notify,
}

/// Guard of one request in flight; the drain waits until it is dropped.
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
    /// Counts a request in; `None` once the drain has begun.
    pub fn enter(&self) -> Option<Inside<'_>> {
        // Counted before the state is read, so that a drain that begins in between sees this request.
        self.inside.fetch_add(1, Ordering::SeqCst);
        let inside = Inside { drain: self };
        (!self.is_draining()).then_some(inside)
    }

    /// Moves to `next`: `Ready` once the models serve, `Draining` to make `enter` refuse, `Stopped` at the
    /// end. A step out of order is ignored, so a server stopped during its start never becomes ready.
    pub fn go(&self, next: ServerState) {
        self.state.send_if_modified(|state| state.enter(next).is_ok());
    }

    /// Present state of the server.
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
        // The sender lives in `self`, so the wait cannot fail.
        let _ = state.wait_for(begun).await;
    }

    /// Waits until no request is in flight; false if `timeout` passes first.
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

    /// Number of requests in flight.
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
    async fn a_drain_waits_for_requests_in_flight_and_refuses_new_ones() {
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
