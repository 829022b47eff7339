//! Tests of latency quantiles: their error and their lifetime.

use std::time::Duration;

use penstock_core::{Class, Source};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::clock::Clock;
use crate::metrics::names::latency_bounds;
use crate::metrics::tests::{MS, Read, read};
use crate::metrics::{Metrics, OutcomeLabel};

/// Sends `latencies` through one series whose quantile window is open.
fn after(latencies: &[f64]) -> Read {
    let metrics = Metrics::new(Clock::start());
    let handles = metrics.model("m", "1");
    let done = |seconds: f64| {
        let took = Duration::from_secs_f64(seconds);
        handles.request_done(Source::Grpc, Class::Bulk, OutcomeLabel::Ok, 1, None, MS, took);
    };
    done(latencies[0]);
    metrics.render();
    latencies[1..].iter().copied().for_each(done);
    read(&metrics)
}

const ORIGIN: &str = r#"model="m",source="grpc",class="bulk""#;

impl Read {
    /// The upper bounds and cumulative counts of the latency histogram, in order.
    fn buckets(&self) -> Vec<(f64, f64)> {
        let prefix = format!(r#"penstock_request_duration_seconds_bucket{{{ORIGIN},le=""#);
        let buckets = self.samples.iter().filter_map(|(series, count)| {
            let bound = series.strip_prefix(&prefix)?.strip_suffix("\"}")?;
            Some((bound.parse().unwrap(), *count))
        });
        let mut buckets: Vec<(f64, f64)> = buckets.collect();
        buckets.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        buckets
    }

    /// A quantile as Prometheus' `histogram_quantile` computes it: linear inside the bucket.
    fn histogram_quantile(&self, q: f64) -> f64 {
        let buckets = self.buckets();
        let rank = q * buckets.last().unwrap().1;
        let (mut lower, mut below) = (0.0, 0.0);
        for (bound, count) in buckets {
            if count >= rank {
                return lower + (bound - lower) * (rank - below) / (count - below);
            }
            (lower, below) = (bound, count);
        }
        lower
    }

    fn live_quantile(&self, q: f64) -> f64 {
        self.value(&format!(
            r#"penstock_request_latency_seconds{{{ORIGIN},quantile="{q}"}}"#
        ))
    }
}

/// Value that a share of `q` of the sorted `values` does not exceed.
fn exact(values: &[f64], q: f64) -> f64 {
    values[(q * values.len() as f64).ceil() as usize - 1]
}

/// Largest errors of a p99: read from the page's buckets, and from one of its live quantiles. The latencies
/// run from 0.2 ms to 8 s; `shape` gives values around 1.
fn worst(shape: impl FnMut() -> f64) -> (f64, f64) {
    let mut shape: Vec<f64> = std::iter::repeat_with(shape).take(20_000).collect();
    shape.sort_unstable_by(f64::total_cmp);
    // 1.87 is no power of the buckets' ratio, so each of the 17 scales falls on another place in a bucket.
    let errors = (0..17).map(|step| {
        let scale = 0.0002 * 1.87_f64.powi(step);
        let values: Vec<f64> = shape.iter().map(|value| scale * value).collect();
        let read = after(&values);
        let off = |read: f64, q| (read - exact(&values, q)).abs() / exact(&values, q);
        let live = [0.5, 0.9, 0.99, 0.999].map(|q| off(read.live_quantile(q), q));
        (
            off(read.histogram_quantile(0.99), 0.99),
            live.into_iter().fold(0.0, f64::max),
        )
    });
    errors.fold((0.0, 0.0), |a, b| (a.0.max(b.0), a.1.max(b.1)))
}

#[test]
fn a_p99_from_the_buckets_is_within_five_percent_and_a_live_one_within_one() {
    let mut random = StdRng::seed_from_u64(7);
    let mut uniform = || random.random::<f64>();
    let mut within = |name: &str, shape: &dyn Fn(&mut dyn FnMut() -> f64) -> f64| {
        let (buckets, live) = worst(|| shape(&mut uniform));
        println!(
            "{name}: off by {:.2} % at most, live {:.3} %",
            100.0 * buckets,
            100.0 * live
        );
        assert!(
            buckets < 0.05,
            "{name}: a p99 from the buckets is off by {buckets}"
        );
        assert!(live < 0.01, "{name}: a live quantile is off by {live}");
    };
    // Twelve uniform values sum to a mean of 6 and a variance of 1.
    let normal = |u: &mut dyn FnMut() -> f64| (0..12).map(|_| u()).sum::<f64>() - 6.0;
    within("lognormal", &|u| (0.5 * normal(u)).exp());
    within("exponential", &|u| 0.01 - (1.0 - u()).ln());
    within("bimodal", &|u| {
        if u() < 0.97 { 1.0 + 0.1 * u() } else { 3.0 + u() }
    });
    within("uniform over a tenth", &|u| 1.0 + 0.1 * u());
    within("normal, 3 percent wide", &|u| 1.0 + 0.03 * normal(u));
    within("constant", &|_| 1.0);
}

#[test]
fn live_quantiles_forget_after_a_minute() {
    let (clock, time) = quanta::Clock::mock();
    quanta::with_clock(&clock, || {
        let metrics = Metrics::new(Clock::start());
        let handles = metrics.model("m", "1");
        let done =
            |took| handles.request_done(Source::Grpc, Class::Bulk, OutcomeLabel::Ok, 1, None, MS, took);
        let p99 = || read(&metrics).live_quantile(0.99);
        (0..3).for_each(|_| done(Duration::from_secs(2)));
        assert!((p99() - 2.0).abs() < 0.02);
        time.increment(Duration::from_secs(45));
        done(MS);
        assert!((p99() - 2.0).abs() < 0.02);
        time.increment(Duration::from_secs(16));
        assert!((p99() - 0.001).abs() < 0.000_01);
        time.increment(Duration::from_mins(1));
        assert!(p99().abs() < 1e-9);
        let read = read(&metrics);
        read.near(
            &format!("penstock_request_latency_seconds_count{{{ORIGIN}}}"),
            4.0,
        );
        read.near(
            &format!("penstock_request_latency_seconds_sum{{{ORIGIN}}}"),
            6.001,
        );
    });
}

#[test]
fn a_live_quantile_is_no_less_than_a_700th_of_the_largest_latency() {
    let mut latencies = vec![0.005; 9_999];
    latencies.push(60.0);
    let read = after(&latencies);
    println!(
        "median {} s, from the buckets {} s",
        read.live_quantile(0.5),
        read.histogram_quantile(0.5)
    );
    assert!((read.histogram_quantile(0.5) / 0.005 - 1.0).abs() < 0.05);
    assert!((read.live_quantile(0.5) / (60.0 / 700.0) - 1.0).abs() < 0.01);
}

#[test]
fn any_latency_can_be_recorded() {
    let mut random = StdRng::seed_from_u64(8);
    let mut latencies: Vec<f64> = (0..5_000)
        .map(|_| 10_f64.powf(random.random_range(-9.0..6.0)))
        .collect();
    latencies.push(0.0);
    let read = after(&latencies);
    let count = read.value(&format!("penstock_request_duration_seconds_count{{{ORIGIN}}}"));
    assert!((count - 5_001.0).abs() < 1e-9);
}

#[test]
fn buckets_are_rising_and_cover_the_range() {
    let bounds = latency_bounds();
    assert_eq!((bounds[0], bounds.len()), (0.000_05, 300));
    assert!(*bounds.last().unwrap() >= 60.0);
    assert!(bounds.windows(2).all(|w| w[0] < w[1] && w[1] <= w[0] * 1.049));
    // A value at a bound belongs to that bucket; values beyond the last bound have a bucket too.
    let counts: Vec<f64> = after(&[0.0, 0.000_05, 0.000_050_001, 1e9])
        .buckets()
        .iter()
        .map(|b| b.1)
        .collect();
    assert_eq!(
        (counts[0], counts[1], counts[299], counts[300]),
        (2.0, 3.0, 3.0, 4.0)
    );
}
