//! A client whose end has a timeout, because it waits for its group, its broker and its own threads.

use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tracing::warn;

use super::call_with_timeout::TimedCalls;

/// Timeout of a client's end; leaving the group takes at most 5 s.
const END_MAX: Duration = Duration::from_secs(15);

/// Clients of this process that have not ended.
static ALIVE: AtomicUsize = AtomicUsize::new(0);

/// Clients of this process that were created and have not ended, abandoned ones included.
pub fn clients_alive() -> usize {
    ALIVE.load(Ordering::Relaxed)
}

/// A client that ends on a separate thread, and is abandoned after a timeout.
pub struct ClientShutdown<T: Send + 'static> {
    /// Present until it is dropped.
    client: Option<T>,
    route: String,
}

impl<T: Send + 'static> ClientShutdown<T> {
    /// A client of this route.
    pub fn new(client: T, route: &str) -> ClientShutdown<T> {
        ALIVE.fetch_add(1, Ordering::Relaxed);
        let client = Some(client);
        let route = route.to_owned();
        ClientShutdown { client, route }
    }
}

impl<T: Send + 'static> Deref for ClientShutdown<T> {
    type Target = T;

    #[expect(clippy::expect_used, reason = "only drop takes it")]
    fn deref(&self) -> &T {
        self.client.as_ref().expect("a client until it is dropped")
    }
}

impl<T: Send + 'static> Drop for ClientShutdown<T> {
    fn drop(&mut self) {
        let client = self.client.take();
        let end = move || {
            drop(client);
            ALIVE.fetch_sub(1, Ordering::Relaxed);
        };
        let Ok(apart) = TimedCalls::start(format!("kafka-{}-end", self.route)) else {
            return end();
        };
        if apart.call(END_MAX, end, || ()).is_err() {
            warn!(
                route = self.route,
                "a client has not ended within {END_MAX:?}; it is left to itself"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::bounded;

    use super::*;

    #[test]
    fn a_client_is_there_until_it_has_ended() {
        struct Client(crossbeam_channel::Sender<()>);
        impl Drop for Client {
            fn drop(&mut self) {
                self.0.send(()).unwrap();
            }
        }
        let (ended, end) = bounded(1);
        let client = ClientShutdown::new(Client(ended), "r");
        assert!(client.0.is_empty());
        drop(client);
        assert!(end.try_recv().is_ok());
    }
}
