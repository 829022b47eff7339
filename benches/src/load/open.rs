//! Open loop: requests start at the times of a Poisson process, independent of the server.
//!
//! A thread of its own waits for each arrival, because the runtime's timers are a millisecond coarse.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::figures::{Belongs, Figures, Recorder, Window};
use super::{Adapter, Feed};

/// Arrivals that wait to be sent. Further ones are late, which their latency shows.
const BACKLOG_MAX: usize = 1 << 16;
/// Requests in flight at once; the next ones wait, and their latency counts.
const IN_FLIGHT_MAX: usize = 4096;
/// Time after the end for unanswered requests. Later ones count as errors.
const PATIENCE: Duration = Duration::from_secs(30);

/// Sends requests at `rate` a second on average.
pub async fn run(
    adapter: &Arc<dyn Adapter>,
    feed: &Arc<Feed>,
    rate: f64,
    seed: u64,
    warm: Duration,
    measured: Duration,
) -> Result<Figures> {
    let window = Window::after(warm, measured);
    let recorder = Arc::new(Mutex::new(Recorder::new(window)?));
    let (sender, mut arrivals) = mpsc::channel(BACKLOG_MAX);
    let clock = std::thread::Builder::new()
        .name("arrivals".into())
        .spawn(move || arrive(&sender, rate, seed, window.until))
        .context("cannot start the thread of arrivals")?;
    let mut requests = JoinSet::new();
    while let Some(intended) = arrivals.recv().await {
        while requests.try_join_next().is_some() {}
        if requests.len() >= IN_FLIGHT_MAX {
            requests.join_next().await;
        }
        requests.spawn(request(
            Arc::clone(adapter),
            Arc::clone(feed),
            Arc::clone(&recorder),
            intended,
        ));
    }
    let _ = clock.join();
    let last = tokio::time::Instant::from_std(window.until + PATIENCE);
    while let Ok(Some(ended)) = tokio::time::timeout_at(last, requests.join_next()).await {
        ended.context("a request of the load generator died")?;
    }
    let lost = requests.len() as u64;
    requests.shutdown().await;
    let recorder = Arc::into_inner(recorder).context("a request outlived its shutdown")?;
    Ok(recorder
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)
        .figures(lost))
}

fn arrive(sender: &mpsc::Sender<Instant>, rate: f64, seed: u64, until: Instant) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut at = Instant::now();
    loop {
        at += gap(rate, &mut rng);
        if at >= until {
            return;
        }
        let wait = at.saturating_duration_since(Instant::now());
        if !wait.is_zero() {
            std::thread::sleep(wait);
        }
        if sender.blocking_send(at).is_err() {
            return;
        }
    }
}

/// Time to the next arrival: exponential, so that arrivals are independent.
fn gap(rate: f64, rng: &mut StdRng) -> Duration {
    let uniform: f64 = rng.random();
    Duration::from_secs_f64(-(1.0 - uniform).ln() / rate)
}

async fn request(
    adapter: Arc<dyn Adapter>,
    feed: Arc<Feed>,
    recorder: Arc<Mutex<Recorder>>,
    intended: Instant,
) {
    let load = feed.next();
    let size = load.size();
    let result = adapter.score(load.turn, load.texts).await;
    recorder.lock().unwrap_or_else(PoisonError::into_inner).record(
        size,
        intended,
        Belongs::WhereItStarts,
        result,
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Failure;
    use futures_util::future::BoxFuture;

    #[test]
    fn gaps_are_exponential() {
        let mut rng = StdRng::seed_from_u64(3);
        let gaps: Vec<f64> = (0..20_000).map(|_| gap(100.0, &mut rng).as_secs_f64()).collect();
        let mean = gaps.iter().sum::<f64>() / 20_000.0;
        assert!((0.0097..0.0103).contains(&mean), "mean {mean}");
        // In an exponential distribution, 1/e of the draws lie above the mean.
        let above = gaps.iter().filter(|g| **g > 0.01).count() as f64 / 20_000.0;
        assert!((0.355..0.381).contains(&above), "above the mean {above}");
    }

    /// Answers one request after the other, each after 20 ms.
    struct Slow(tokio::sync::Mutex<()>);

    impl Adapter for Slow {
        fn score(&self, _turn: usize, _texts: Vec<String>) -> BoxFuture<'_, Result<(), Failure>> {
            Box::pin(async {
                let _turn = self.0.lock().await;
                tokio::time::sleep(Duration::from_millis(20)).await;
                Ok(())
            })
        }
    }

    #[tokio::test]
    async fn an_overloaded_server_is_charged_for_the_queue() {
        let adapter: Arc<dyn Adapter> = Arc::new(Slow(tokio::sync::Mutex::new(())));
        let feed = Arc::new(Feed::new(vec!["a".into()], vec![3], 1));
        // 200 arrivals a second meet a server that answers at most 50: after 0.4 s it is 1.2 s behind.
        let measured = Duration::from_millis(400);
        let figures = run(&adapter, &feed, 200.0, 1, Duration::ZERO, measured)
            .await
            .expect("runs");
        assert!(figures.p99_ms > 600.0, "{figures:?}");
        assert!(figures.texts_per_second < 60.0, "{figures:?}");
    }
}
