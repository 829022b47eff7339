//! Closed loop: each worker sends its next request when the last one is answered.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::task::JoinSet;

use super::figures::{Belongs, Figures, Recorder, Window};
use super::{Adapter, Feed};

/// Time after the end at which workers without an answer are abandoned; a silent server would hold them for
/// ever.
const PATIENCE: Duration = Duration::from_secs(30);

/// Keeps `concurrency` requests on their way through `warm` and `measured`, and counts those that end
/// in `measured`.
pub async fn run(
    adapter: &Arc<dyn Adapter>,
    feed: &Arc<Feed>,
    concurrency: usize,
    warm: Duration,
    measured: Duration,
) -> Result<Figures> {
    let window = Window::after(warm, measured);
    let recorder = Arc::new(Mutex::new(Recorder::new(window)?));
    let mut workers = JoinSet::new();
    for _ in 0..concurrency {
        workers.spawn(work(
            Arc::clone(adapter),
            Arc::clone(feed),
            Arc::clone(&recorder),
            window,
        ));
    }
    let last = tokio::time::Instant::from_std(window.until + PATIENCE);
    while let Ok(Some(ended)) = tokio::time::timeout_at(last, workers.join_next()).await {
        ended.context("a worker of the load generator died")?;
    }
    let lost = workers.len() as u64;
    workers.shutdown().await;
    let recorder = Arc::into_inner(recorder).context("a worker outlived its shutdown")?;
    Ok(recorder
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)
        .figures(lost))
}

async fn work(adapter: Arc<dyn Adapter>, feed: Arc<Feed>, recorder: Arc<Mutex<Recorder>>, window: Window) {
    while Instant::now() < window.until {
        let load = feed.next();
        let size = load.size();
        let started = Instant::now();
        let result = adapter.score(load.turn, load.texts).await;
        let failed = result.is_err();
        recorder.lock().unwrap_or_else(PoisonError::into_inner).record(
            size,
            started,
            Belongs::WhereItEnds,
            result,
        );
        if failed {
            // A refusing server answers at once; without a pause the loop would only measure refusals.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
