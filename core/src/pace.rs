//! How far to read ahead of a model: as many records as it finishes in a given time, whatever its speed.
//!
//! More would not make it faster, but everything behind them slower: bulk work that has waited for long goes
//! before interactive work, and a partition that is revoked must be finished while its group waits.

use std::time::Duration;

use crate::request::Nanos;

/// A rate is taken over at least this, however many records finish in it.
const WINDOW_MIN: Duration = Duration::from_millis(100);

/// A rate is taken after this, however few records finish in it.
const WINDOW_MAX: Duration = Duration::from_secs(1);

/// From one window to the next the limit changes at most by this factor.
const STEP_MAX: f64 = 4.0;

/// The limit that follows the rate.
#[derive(Debug)]
pub struct Pace {
    ahead: Duration,
    least: usize,
    most: usize,
    limit: usize,
    since: Nanos,
    finished: usize,
    /// In how many rounds of this window the limit was felt, and in how many not: a rate that the input
    /// bounds says nothing of the model.
    felt: (u32, u32),
    feels: bool,
}

impl Pace {
    /// Reads `ahead` of the model, at least `least` and at most `most` records.
    pub fn new(ahead: Duration, least: usize, most: usize, now: Nanos) -> Pace {
        let most = most.max(1);
        let least = least.clamp(1, most);
        Pace {
            ahead,
            least,
            most,
            limit: least,
            since: now,
            finished: 0,
            felt: (0, 0),
            feels: false,
        }
    }

    /// So many records have finished.
    pub fn finished(&mut self, records: usize) {
        self.finished += records;
    }

    /// Reading stopped because of the limit in this round.
    pub fn felt(&mut self) {
        self.feels = true;
    }

    /// How many records may be inside in the next round.
    pub fn limit(&mut self, now: Nanos) -> usize {
        if std::mem::take(&mut self.feels) {
            self.felt.0 += 1;
        } else {
            self.felt.1 += 1;
        }
        let took = now.since(self.since);
        let enough = took >= WINDOW_MIN && self.finished >= self.limit / 2;
        if enough || took >= WINDOW_MAX {
            if self.felt.0 >= self.felt.1 {
                let ahead = self.ahead.as_secs_f64() / took.as_secs_f64();
                let limit = self.limit as f64;
                let aim = (self.finished as f64 * ahead).clamp(limit / STEP_MAX, limit * STEP_MAX);
                self.limit = (aim as usize).clamp(self.least, self.most);
            }
            self.since = now;
            self.finished = 0;
            self.felt = (0, 0);
        }
        self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::millis;

    /// Runs a model of `rate` records a second that always has enough to do, and returns the last limit.
    fn settle(pace: &mut Pace, rate: f64, from: u64, seconds: u64) -> usize {
        let (mut carry, mut limit) = (0.0, 0);
        for at in (from..from + 1000 * seconds).step_by(10) {
            carry += rate / 100.0;
            pace.finished(carry as usize);
            carry -= carry.trunc();
            pace.felt();
            limit = pace.limit(millis(at));
        }
        limit
    }

    #[test]
    fn the_limit_is_what_the_model_finishes_in_the_given_time() {
        let mut pace = Pace::new(Duration::from_millis(500), 16, 100_000, millis(0));
        let fast = settle(&mut pace, 10_000.0, 0, 10);
        assert!((4_500..=5_500).contains(&fast), "{fast}");
        let slow = settle(&mut pace, 100.0, 10_000, 20);
        assert!((45..=55).contains(&slow), "{slow}");
    }

    #[test]
    fn it_stays_within_its_bounds() {
        let mut pace = Pace::new(Duration::from_millis(500), 16, 1_000, millis(0));
        assert_eq!(settle(&mut pace, 1e6, 0, 10), 1_000);
        assert_eq!(settle(&mut pace, 1.0, 10_000, 30), 16);
        assert_eq!(Pace::new(Duration::ZERO, 50, 10, millis(0)).limit(millis(0)), 10);
    }

    #[test]
    fn a_dry_input_says_nothing_of_the_model() {
        let mut pace = Pace::new(Duration::from_millis(500), 16, 100_000, millis(0));
        let fast = settle(&mut pace, 10_000.0, 0, 10);
        for at in (10_000..30_000).step_by(10) {
            pace.finished(1);
            assert_eq!(pace.limit(millis(at)), fast);
        }
    }
}
