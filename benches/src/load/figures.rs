//! Results of a burst of load: rates, quantiles, failures.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use hdrhistogram::Histogram;
use serde::Serialize;

use super::{Failure, Load};

/// Longest latency that is distinguished, a minute; three digits keep a quantile within 0.1 %.
const LATENCY_NS_MAX: u64 = 60_000_000_000;

/// The measured part of a burst.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// End of the warm-up.
    pub from: Instant,
    /// End of the burst.
    pub until: Instant,
}

impl Window {
    /// `warm` from now, then `measured`.
    pub fn after(warm: Duration, measured: Duration) -> Window {
        let from = Instant::now() + warm;
        Window {
            from,
            until: from + measured,
        }
    }

    fn holds(&self, at: Instant) -> bool {
        (self.from..self.until).contains(&at)
    }

    /// The part of the time between `start` and `end` that lies in the window.
    fn share(&self, start: Instant, end: Instant) -> f64 {
        let inside = end
            .min(self.until)
            .saturating_duration_since(start.max(self.from));
        inside.as_secs_f64() / (end - start).as_secs_f64().max(1e-9)
    }
}

/// Event of a request that decides whether its latency counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Belongs {
    /// Open loop: a request that arrived in the window counts, however late it is answered.
    WhereItStarts,
    /// Closed loop: a request that ends in the window counts, because a worker starts when it can. Its rates
    /// count each request by the part of it within the window. Answers come a batch at a time, and one batch
    /// more at the edge would change the rate of a short burst by a tenth.
    WhereItEnds,
}

/// Collects the requests of one burst.
pub struct Recorder {
    latency: Histogram<u64>,
    window: Window,
    requests: f64,
    texts: f64,
    tokens: f64,
    errors: u64,
    error: Option<Failure>,
}

impl Recorder {
    /// Nothing yet.
    pub fn new(window: Window) -> Result<Recorder> {
        let latency = Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3)
            .map_err(|e| anyhow!("histogram of latencies: {e}"))?;
        Ok(Recorder {
            latency,
            window,
            requests: 0.0,
            texts: 0.0,
            tokens: 0.0,
            errors: 0,
            error: None,
        })
    }

    /// A request of `(texts, tokens)` that should have started at `intended` ended now.
    pub fn record(
        &mut self,
        (texts, tokens): (usize, usize),
        intended: Instant,
        belongs: Belongs,
        result: Result<(), Failure>,
    ) {
        let now = Instant::now();
        let (place, share) = match belongs {
            Belongs::WhereItStarts => (intended, f64::from(u8::from(self.window.holds(now)))),
            Belongs::WhereItEnds => (now, self.window.share(intended, now)),
        };
        if result.is_ok() {
            self.requests += share;
            self.texts += share * texts as f64;
            self.tokens += share * tokens as f64;
        }
        if !self.window.holds(place) {
            return;
        }
        match result {
            Ok(()) => {
                self.latency
                    .saturating_record(u64::try_from((now - intended).as_nanos()).unwrap_or(u64::MAX));
            }
            Err(failure) => {
                self.errors += 1;
                self.error.get_or_insert(failure);
            }
        }
    }

    /// Results of the burst. `lost` requests were still unanswered when it was given up.
    pub fn figures(self, lost: u64) -> Figures {
        let seconds = (self.window.until - self.window.from).as_secs_f64();
        let quantile = |q| self.latency.value_at_quantile(q) as f64 / 1e6;
        Figures {
            requests_per_second: self.requests / seconds,
            texts_per_second: self.texts / seconds,
            tokens_per_second: self.tokens / seconds,
            p50_ms: quantile(0.5),
            p90_ms: quantile(0.9),
            p99_ms: quantile(0.99),
            p999_ms: quantile(0.999),
            requests: self.latency.len(),
            errors: self.errors + lost,
            error: self.error.map(|f| f.0),
        }
    }
}

/// Results of one burst, or the medians of several.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Figures {
    /// Requests answered a second.
    pub requests_per_second: f64,
    /// Texts answered a second.
    pub texts_per_second: f64,
    /// Tokens answered a second; zero without a tokenizer.
    pub tokens_per_second: f64,
    /// Latency quantiles of the answered requests.
    pub p50_ms: f64,
    /// 90 %.
    pub p90_ms: f64,
    /// 99 %.
    pub p99_ms: f64,
    /// 99.9 %.
    pub p999_ms: f64,
    /// Requests behind the quantiles.
    pub requests: u64,
    /// Failed or unanswered ones.
    pub errors: u64,
    /// The first failure.
    pub error: Option<String>,
}

impl Figures {
    /// The median of every figure, the sum of every count.
    pub fn medians(rounds: &[Figures]) -> Figures {
        let of = |pick: fn(&Figures) -> f64| median(rounds.iter().map(pick).collect());
        Figures {
            requests_per_second: of(|f| f.requests_per_second),
            texts_per_second: of(|f| f.texts_per_second),
            tokens_per_second: of(|f| f.tokens_per_second),
            p50_ms: of(|f| f.p50_ms),
            p90_ms: of(|f| f.p90_ms),
            p99_ms: of(|f| f.p99_ms),
            p999_ms: of(|f| f.p999_ms),
            requests: rounds.iter().map(|f| f.requests).sum(),
            errors: rounds.iter().map(|f| f.errors).sum(),
            error: rounds.iter().find_map(|f| f.error.clone()),
        }
    }
}

/// The middle value, or the mean of the two middle ones; zero of nothing.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => 0.0,
        n if n % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

impl Load {
    /// Texts and tokens, kept once the texts are sent.
    pub fn size(&self) -> (usize, usize) {
        (self.texts.len(), self.tokens)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(values: &[f64], expected: f64) {
        assert!((median(values.to_vec()) - expected).abs() < 1e-12, "{values:?}");
    }

    #[test]
    fn medians() {
        check(&[], 0.0);
        check(&[3.0], 3.0);
        check(&[9.0, 1.0, 2.0], 2.0);
        check(&[4.0, 1.0, 3.0, 2.0], 2.5);
    }

    /// A window of `seconds` that began `ago` seconds before `now`.
    fn window(now: Instant, ago: u64, seconds: u64) -> Window {
        let from = now.checked_sub(Duration::from_secs(ago)).unwrap();
        Window {
            from,
            until: from + Duration::from_secs(seconds),
        }
    }

    #[test]
    fn latency_counts_from_the_intended_start() {
        let now = Instant::now();
        let mut recorder = Recorder::new(window(now, 0, 10)).unwrap();
        let intended = now.checked_sub(Duration::from_secs(3)).unwrap();
        recorder.record((2, 7), intended, Belongs::WhereItEnds, Ok(()));
        recorder.record((1, 1), now, Belongs::WhereItStarts, Err(Failure("full".into())));
        let figures = recorder.figures(1);
        assert!((3000.0..3100.0).contains(&figures.p50_ms), "{figures:?}");
        assert_eq!((figures.requests, figures.errors), (1, 2));
        assert_eq!(figures.error.as_deref(), Some("full"));
    }

    #[test]
    fn a_request_of_a_closed_loop_counts_by_its_part_in_the_window() {
        let now = Instant::now();
        let ends_now = window(now, 1, 1);
        let mut recorder = Recorder::new(ends_now).unwrap();
        // A quarter of its four seconds.
        let started = now.checked_sub(Duration::from_secs(4)).unwrap();
        recorder.record((8, 80), started, Belongs::WhereItEnds, Ok(()));
        let figures = recorder.figures(0);
        assert!((figures.texts_per_second - 2.0).abs() < 0.01, "{figures:?}");
        assert!((figures.tokens_per_second - 20.0).abs() < 0.1, "{figures:?}");
    }

    #[test]
    fn a_request_of_an_open_loop_counts_however_late_it_ends() {
        let now = Instant::now();
        let over = window(now, 2, 1);
        let mut recorder = Recorder::new(over).unwrap();
        let intended = over.from + Duration::from_millis(500);
        recorder.record((1, 1), intended, Belongs::WhereItStarts, Ok(()));
        let figures = recorder.figures(0);
        assert_eq!(figures.requests, 1);
        assert!(figures.p50_ms >= 1498.0, "{figures:?}");
        assert!(
            figures.texts_per_second < 1e-9,
            "it ended behind the window: {figures:?}"
        );
    }
}
