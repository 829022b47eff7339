//! Back-off between two pumps: it grows until a pump has committed something.

use std::time::Duration;

/// Shortest and longest wait.
const FIRST: Duration = Duration::from_secs(1);
const LAST: Duration = Duration::from_secs(30);

/// Failed attempts since the last progress.
#[derive(Debug, Default)]
pub struct Backoff {
    attempts: u32,
}

impl Backoff {
    /// Records a failed attempt: the pump's running time, and whether it committed. Creating the clients is
    /// no progress, because a group that refuses the consumer is noticed only later.
    pub fn failed(&mut self, ran_for: Duration, committed: bool) -> Duration {
        if committed || ran_for > LAST {
            self.attempts = 0;
        }
        let wait = FIRST.saturating_mul(1 << self.attempts.min(16)).min(LAST);
        self.attempts += 1;
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_grows_until_something_is_done() {
        let mut again = Backoff::default();
        let mut failed = |ran, committed| again.failed(Duration::from_secs(ran), committed).as_secs();
        let waits = [(); 7].map(|()| failed(1, false));
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(failed(1, true), 1, "something was committed");
        assert_eq!(failed(1, false), 2);
        assert_eq!(failed(31, false), 1, "it had nothing to do and ran for long");
    }
}
