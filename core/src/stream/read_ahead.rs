//! How far to read ahead of a model: as many records as it finishes in a given time, whatever its speed.
//!
//! A longer lead adds no throughput and has a cost. Bulk work that has waited for long goes before interactive
//! work, and the records of a revoked partition must be finished while the group waits.

use std::time::Duration;

use crate::time::Nanos;

/// Shortest time over which a rate is measured, however many records finish in it.
const WINDOW_MIN: Duration = Duration::from_millis(100);

/// Longest time over which a rate is measured, however few records finish in it.
const WINDOW_MAX: Duration = Duration::from_secs(1);

/// Largest factor by which the limit changes from one window to the next.
const STEP_MAX: f64 = 4.0;

/// A limit on records in flight that follows the model's rate.
#[derive(Debug)]
pub struct ReadAhead {
    ahead: Duration,
    least: usize,
    most: usize,
    limit: usize,
    since: Nanos,
    finished: usize,
    /// Rounds of this window that the limit held up, and the others. A window in which the input was the
    /// bottleneck does not measure the model.
    rounds: (u32, u32),
    reached: bool,
}

impl ReadAhead {
    /// Reads `ahead` of the model, at least `least` and at most `most` records.
    pub fn new(ahead: Duration, least: usize, most: usize, now: Nanos) -> ReadAhead {
        let most = most.max(1);
        let least = least.clamp(1, most);
        ReadAhead {
            ahead,
            least,
            most,
            limit: least,
            since: now,
            finished: 0,
            rounds: (0, 0),
            reached: false,
        }
    }

    /// Counts records that have finished.
    pub fn finished(&mut self, records: usize) {
        self.finished += records;
    }

    /// Notes that reading stopped at the limit in this round.
    pub fn limit_reached(&mut self) {
        self.reached = true;
    }

    /// Ends the round: the number of records that may be in flight in the next one.
    pub fn limit(&mut self, now: Nanos) -> usize {
        if std::mem::take(&mut self.reached) {
            self.rounds.0 += 1;
        } else {
            self.rounds.1 += 1;
        }
        let took = now.since(self.since);
        let enough = took >= WINDOW_MIN && self.finished >= self.limit / 2;
        if enough || took >= WINDOW_MAX {
            if self.rounds.0 >= self.rounds.1 {
                let ahead = self.ahead.as_secs_f64() / took.as_secs_f64();
                let limit = self.limit as f64;
                let aim = (self.finished as f64 * ahead).clamp(limit / STEP_MAX, limit * STEP_MAX);
                self.limit = (aim as usize).clamp(self.least, self.most);
            }
            self.since = now;
            self.finished = 0;
            self.rounds = (0, 0);
        }
        self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::millis;

    /// Runs a model of `rate` records a second whose input never runs dry, and returns the last limit.
    fn settle(read_ahead: &mut ReadAhead, rate: f64, from: u64, seconds: u64) -> usize {
        let (mut carry, mut limit) = (0.0, 0);
        for at in (from..from + 1000 * seconds).step_by(10) {
            carry += rate / 100.0;
            read_ahead.finished(carry as usize);
            carry -= carry.trunc();
            read_ahead.limit_reached();
            limit = read_ahead.limit(millis(at));
        }
        limit
    }

    #[test]
    fn the_limit_is_the_records_that_the_model_finishes_in_the_given_time() {
        let mut read_ahead = ReadAhead::new(Duration::from_millis(500), 16, 100_000, millis(0));
        let fast = settle(&mut read_ahead, 10_000.0, 0, 10);
        assert!((4_500..=5_500).contains(&fast), "{fast}");
        let slow = settle(&mut read_ahead, 100.0, 10_000, 20);
        assert!((45..=55).contains(&slow), "{slow}");
    }

    #[test]
    fn the_limit_stays_within_its_bounds() {
        let mut read_ahead = ReadAhead::new(Duration::from_millis(500), 16, 1_000, millis(0));
        assert_eq!(settle(&mut read_ahead, 1e6, 0, 10), 1_000);
        assert_eq!(settle(&mut read_ahead, 1.0, 10_000, 30), 16);
        let narrow = ReadAhead::new(Duration::ZERO, 50, 10, millis(0)).limit(millis(0));
        assert_eq!(narrow, 10);
    }

    #[test]
    fn a_dry_input_leaves_the_limit_unchanged() {
        let mut read_ahead = ReadAhead::new(Duration::from_millis(500), 16, 100_000, millis(0));
        let fast = settle(&mut read_ahead, 10_000.0, 0, 10);
        for at in (10_000..30_000).step_by(10) {
            read_ahead.finished(1);
            assert_eq!(read_ahead.limit(millis(at)), fast);
        }
    }
}
