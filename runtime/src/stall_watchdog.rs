//! Reports pumps without progress, and what they wait for. It has a thread of its own, because a pump that
//! hangs cannot report.

use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, RecvTimeoutError};
use tracing::warn;

use crate::progress::{LOOK, Progress, Still};

/// A watched pump.
pub struct Watched {
    /// Its route.
    pub route: String,
    /// Number of the consumer within the route.
    pub consumer: usize,
    /// Its progress.
    pub progress: Arc<Progress>,
}

/// Watches all pumps until the sender of `end` is gone.
pub fn watch(pumps: &[Watched], end: &Receiver<()>) {
    while end.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
        for pump in pumps {
            if let Some(still) = pump.progress.still(Instant::now()) {
                say(pump, still);
            }
        }
    }
}

fn say(pump: &Watched, still: Still) {
    let Watched { route, consumer, .. } = pump;
    let Still {
        doing,
        doing_for,
        still_for,
        hand,
    } = still;
    warn!(route, consumer, doing, ?doing_for, ?still_for, %hand, "nothing has been committed for a while");
}
