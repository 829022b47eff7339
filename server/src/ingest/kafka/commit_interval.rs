//! How long a transaction lasts: longer, the further the consumer is behind. A commit costs the broker the same for
//! few records as for many.

use std::time::Duration;

/// A record that waits in a backlog waits one part in so many longer for the end of its transaction.
const PARTS: u32 = 10;

/// The time between two commits.
#[derive(Clone, Copy, Debug)]
pub struct CommitInterval {
    least: Duration,
    most: Duration,
    interval: Duration,
}

impl CommitInterval {
    /// Between these two; the first while nothing is known.
    pub fn new(least: Duration, most: Duration) -> CommitInterval {
        CommitInterval {
            least,
            // The configuration refuses less; the clamp would panic on it.
            most: most.max(least),
            interval: least,
        }
    }

    /// A record that comes now waits so long until it is read.
    pub fn behind(&mut self, drain: Option<Duration>) {
        let drain = drain.unwrap_or_default();
        self.interval = (drain / PARTS).clamp(self.least, self.most);
    }

    /// After which what was written is committed.
    pub fn interval(&self) -> Duration {
        self.interval
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: Duration = Duration::from_millis(100);
    const MOST: Duration = Duration::from_millis(500);

    #[test]
    fn it_grows_with_the_backlog_and_shrinks_with_it() {
        let mut cadence = CommitInterval::new(LEAST, MOST);
        let mut after = |drain: Option<u64>| {
            cadence.behind(drain.map(Duration::from_millis));
            cadence.interval()
        };
        assert_eq!(after(None), LEAST);
        assert_eq!(after(Some(0)), LEAST);
        assert_eq!(after(Some(1_000)), LEAST);
        assert_eq!(after(Some(3_000)), Duration::from_millis(300));
        assert_eq!(after(Some(86_400_000)), MOST);
        assert_eq!(after(Some(2_000)), Duration::from_millis(200));
        assert_eq!(after(None), LEAST);
    }

    #[test]
    fn equal_bounds_hold_it_still() {
        let mut cadence = CommitInterval::new(LEAST, LEAST);
        cadence.behind(Some(Duration::from_hours(1)));
        assert_eq!(cadence.interval(), LEAST);
    }
}
