//! Progress of an arriving request: a client that owes bytes must send some in every window.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// Part of what was received that each window must add, so that a client holds no memory by standing still.
const SHARE: u64 = 64;

/// Pace that is demanded of a client.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Length of a window.
    pub window: Duration,
    /// Fewest bytes of a window.
    pub bytes_min: u64,
    /// Bytes that are enough for any window.
    pub bytes_enough: u64,
    /// Time for the whole request, less one second for each `bytes_enough / window` received.
    pub grace: Duration,
}

impl Pace {
    /// The pace of requests: 1 KiB in 10 s, up to 160 KiB for one of which 10 MiB are there; all of it at
    /// 16 KiB/s after half a minute.
    pub const REQUEST: Pace = Pace {
        window: Duration::from_secs(10),
        bytes_min: 1024,
        bytes_enough: 160 * 1024,
        grace: Duration::from_secs(30),
    };
}

/// The progress of one request.
#[derive(Debug)]
pub struct RequestProgress {
    pace: Pace,
    received: u64,
    begun: Option<Instant>,
    /// Runs while the client owes bytes: its end, and `received` at its begin.
    window: Option<(Pin<Box<Sleep>>, u64)>,
}

/// A request that arrives too slowly.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the request arrives too slowly: {received} bytes in {elapsed:?}, and {added} in the last {window:?}"
)]
pub struct TooSlow {
    received: u64,
    elapsed: Duration,
    added: u64,
    window: Duration,
}

impl RequestProgress {
    /// A request of which nothing has arrived.
    pub fn new(pace: Pace) -> RequestProgress {
        RequestProgress {
            pace,
            received: 0,
            begun: None,
            window: None,
        }
    }

    /// Counts arrived bytes.
    pub fn received(&mut self, bytes: usize) {
        self.received += bytes as u64;
        // Data that waits at the end of a window was not looked at in time, which is no fault of the client.
        if self
            .window
            .as_ref()
            .is_some_and(|(end, _)| end.deadline() <= Instant::now())
        {
            self.window = None;
        }
    }

    /// Ends the request; the client owes nothing.
    pub fn done(&mut self) {
        *self = RequestProgress::new(self.pace);
    }

    /// Resolves when the client is too slow. Polled while it owes bytes and none are there.
    pub fn poll_too_slow(&mut self, cx: &mut Context<'_>) -> Poll<TooSlow> {
        loop {
            let now = Instant::now();
            let begun = *self.begun.get_or_insert(now);
            let Pace { window, .. } = self.pace;
            let received = self.received;
            let (end, before) = self
                .window
                .get_or_insert_with(|| (Box::pin(sleep_until(now + window)), received));
            let before = *before;
            ready!(end.as_mut().poll(cx));
            let added = received - before;
            let elapsed = begun.elapsed();
            if added < self.demanded(before) || elapsed > self.allowed() {
                return Poll::Ready(TooSlow {
                    received,
                    elapsed,
                    added,
                    window,
                });
            }
            self.window = None;
        }
    }

    fn demanded(&self, before: u64) -> u64 {
        (before / SHARE).clamp(self.pace.bytes_min, self.pace.bytes_enough)
    }

    fn allowed(&self) -> Duration {
        let windows = self.received as f64 / self.pace.bytes_enough as f64;
        self.pace.grace + self.pace.window.mul_f64(windows)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::time::{sleep, timeout};

    use super::*;

    const WINDOW: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(20);

    fn progress() -> RequestProgress {
        RequestProgress::new(Pace {
            window: WINDOW,
            grace: LONG,
            ..Pace::REQUEST
        })
    }

    async fn too_slow(progress: &mut RequestProgress) -> TooSlow {
        let slow = poll_fn(|cx| progress.poll_too_slow(cx));
        timeout(LONG, slow).await.expect("the client is too slow")
    }

    /// Whether the client is in time so far; this also starts a window.
    async fn is_in_time(progress: &mut RequestProgress) -> bool {
        poll_fn(|cx| Poll::Ready(progress.poll_too_slow(cx).is_pending())).await
    }

    #[test]
    fn the_pace_grows_with_what_is_held() {
        let progress = RequestProgress::new(Pace::REQUEST);
        for (held, demanded) in [
            (0, 1024),
            (64 << 10, 1024),
            (1 << 20, 16 << 10),
            (64 << 20, 160 << 10),
        ] {
            assert_eq!(progress.demanded(held), demanded, "{held} bytes");
        }
    }

    #[test]
    fn a_whole_request_keeps_an_average() {
        let mut progress = RequestProgress::new(Pace::REQUEST);
        assert_eq!(progress.allowed(), Duration::from_secs(30));
        progress.received(1 << 20);
        assert_eq!(progress.allowed(), Duration::from_secs(94));
    }

    #[tokio::test]
    async fn a_client_that_stops_is_too_slow_after_one_window() {
        for first in [0, 1, 64 << 20] {
            let mut progress = progress();
            progress.received(first);
            let slow = too_slow(&mut progress).await;
            assert_eq!((slow.received, slow.added), (first as u64, 0));
            assert!(slow.elapsed >= WINDOW, "{slow}");
        }
    }

    #[tokio::test]
    async fn a_window_with_enough_is_followed_by_another() {
        let mut progress = progress();
        assert!(is_in_time(&mut progress).await);
        progress.received(2048);
        let slow = too_slow(&mut progress).await;
        assert_eq!((slow.received, slow.added), (2048, 0));
        assert!(slow.elapsed >= 2 * WINDOW, "{slow}");
    }

    #[tokio::test]
    async fn a_byte_now_and_then_is_no_progress() {
        let mut progress = progress();
        let trickle = async {
            loop {
                let slow = poll_fn(|cx| progress.poll_too_slow(cx));
                match timeout(Duration::from_millis(1), slow).await {
                    Ok(slow) => return slow,
                    Err(_) => progress.received(1),
                }
            }
        };
        let slow = timeout(LONG, trickle).await.expect("the client is too slow");
        assert!(slow.added < 1024, "{slow}");
    }

    #[tokio::test]
    async fn a_window_that_nobody_looked_at_is_not_held_against_the_client() {
        let mut progress = progress();
        assert!(is_in_time(&mut progress).await);
        sleep(2 * WINDOW).await;
        progress.received(1);
        assert!(is_in_time(&mut progress).await);
    }

    #[tokio::test]
    async fn what_ends_owes_nothing() {
        let mut progress = progress();
        assert!(is_in_time(&mut progress).await);
        progress.done();
        sleep(2 * WINDOW).await;
        assert!(
            is_in_time(&mut progress).await,
            "the next request has its own time"
        );
    }
}
