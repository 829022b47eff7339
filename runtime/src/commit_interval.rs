//! Commit interval: it grows with the backlog, because a commit costs the broker the same for few records as
//! for many.

use std::time::Duration;

/// Divisor of the time to drain; the quotient is the commit interval.
const PARTS: u32 = 10;

/// Time between two commits.
#[derive(Clone, Copy, Debug)]
pub struct CommitInterval {
    least: Duration,
    most: Duration,
    interval: Duration,
}

impl CommitInterval {
    /// An interval between these two; the first while the backlog is unknown.
    pub fn new(least: Duration, most: Duration) -> CommitInterval {
        CommitInterval {
            least,
            // The configuration refuses a smaller value, on which the clamp would panic.
            most: most.max(least),
            interval: least,
        }
    }

    /// Sets the time to drain: the wait of a new record until it is read.
    pub fn behind(&mut self, drain: Option<Duration>) {
        let drain = drain.unwrap_or_default();
        self.interval = (drain / PARTS).clamp(self.least, self.most);
    }

    /// Time between two commits.
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
