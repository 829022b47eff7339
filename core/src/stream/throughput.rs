//! Throughput of a stream, measured while there is a backlog. Without one the input bounds the rate, which then
//! says nothing about the time that a backlog would take.

use std::time::Duration;

use crate::time::Nanos;

/// Time constant of the average: older measurements count less.
const MEMORY: Duration = Duration::from_secs(10);

/// Drain time of a stream that stands still. Rules and autoscalers can compare it, unlike infinity.
const DRAIN_MAX: Duration = Duration::from_hours(24);

/// The rate of one stream.
#[derive(Debug)]
pub struct Throughput {
    rate: Option<f64>,
    since: Nanos,
    behind: bool,
}

impl Throughput {
    /// A stream without any measurement.
    pub fn new(now: Nanos) -> Throughput {
        Throughput {
            rate: None,
            since: now,
            behind: false,
        }
    }

    /// Learns that `finished` records have finished since the last call and `left` remain. `behind` is true
    /// where more remain than can be in flight at once.
    pub fn observe(&mut self, finished: u64, left: u64, behind: bool, now: Nanos) {
        let took = now.since(self.since);
        if took.is_zero() {
            return;
        }
        let was_behind = std::mem::replace(&mut self.behind, behind);
        self.since = now;
        let seen = finished as f64 / took.as_secs_f64();
        let stands_still = finished == 0 && left > 0;
        self.rate = match self.rate {
            None if finished > 0 => Some(seen),
            Some(rate) if (was_behind && behind) || stands_still => {
                let weight = 1.0 - (-took.as_secs_f64() / MEMORY.as_secs_f64()).exp();
                Some(rate + (seen - rate) * weight)
            }
            // The input may have been the bound: the rate is at least this.
            Some(rate) => Some(rate.max(seen)),
            None => None,
        };
    }

    /// Records a second; 0 before the first has finished.
    pub fn rate(&self) -> f64 {
        self.rate.unwrap_or(0.0)
    }
}

/// Time that `lag` records take at `rate` records a second, at most a day.
pub fn drain_seconds(lag: u64, rate: f64) -> f64 {
    if lag == 0 {
        return 0.0;
    }
    let most = DRAIN_MAX.as_secs_f64();
    if rate > 0.0 {
        (lag as f64 / rate).min(most)
    } else {
        most
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::millis;

    /// One observation a second: `finished` records in it, `left` after it.
    fn seconds(throughput: &mut Throughput, from: u64, count: u64, finished: u64, left: u64) {
        for second in from..from + count {
            throughput.observe(finished, left, left > 1000, millis(1000 * (second + 1)));
        }
    }

    fn check(throughput: &Throughput, rate: f64) {
        let found = throughput.rate();
        assert!((found - rate).abs() <= rate * 0.05 + 1.0, "{found}, not {rate}");
    }

    #[test]
    fn a_backlog_shows_the_rate() {
        let mut throughput = Throughput::new(millis(0));
        seconds(&mut throughput, 0, 5, 500, 100_000);
        check(&throughput, 500.0);
        seconds(&mut throughput, 5, 60, 100, 90_000);
        check(&throughput, 100.0);
    }

    #[test]
    fn a_trickling_input_does_not_lower_the_rate() {
        let mut throughput = Throughput::new(millis(0));
        seconds(&mut throughput, 0, 60, 500, 100_000);
        seconds(&mut throughput, 60, 600, 3, 0);
        check(&throughput, 500.0);
    }

    #[test]
    fn a_first_backlog_raises_the_rate_of_a_trickle() {
        let mut throughput = Throughput::new(millis(0));
        seconds(&mut throughput, 0, 600, 3, 0);
        seconds(&mut throughput, 600, 1, 500, 100_000);
        check(&throughput, 500.0);
    }

    #[test]
    fn the_drain_time_of_a_stalled_stream_grows_up_to_a_day() {
        let mut throughput = Throughput::new(millis(0));
        seconds(&mut throughput, 0, 5, 500, 100);
        assert!(drain_seconds(100, throughput.rate()) < 1.0);
        seconds(&mut throughput, 5, 60, 0, 100);
        assert!(drain_seconds(100, throughput.rate()) > 60.0);
        assert!((drain_seconds(100, 0.0) - 86_400.0).abs() < f64::EPSILON);
        assert!(drain_seconds(0, 0.0).abs() < f64::EPSILON);
    }
}
