//! Says of each pump that does not get on what it waits for. A thread of its own looks: a pump that hangs cannot say.

use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, RecvTimeoutError};
use tracing::warn;

use crate::respond::kafka::{LOOK, Progress, Still};

/// One pump that is looked at.
pub struct Watched {
    /// Its route.
    pub route: String,
    /// Which of the route's consumers.
    pub consumer: usize,
    /// How it gets on.
    pub progress: Arc<Progress>,
}

/// Looks at all of them until the sender of `end` is gone.
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
