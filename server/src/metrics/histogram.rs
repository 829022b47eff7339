//! A histogram of fixed memory: one atomic per bucket and one for the sum.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The upper bounds of a histogram's buckets, in the unit that is recorded (nanoseconds, texts, ppm).
pub(super) type Bounds = &'static [u64];

/// Whole-request latencies, 50 µs to 60 s, each bound 4.8 % above the one before: 300 buckets.
///
/// A quantile read from buckets by Prometheus' linear interpolation is off by up to the width of one,
/// where the latencies in it crowd at its edge: every request takes the same time, or the slowest one has
/// just crossed a bound. Smooth distributions are read within 2 % from buckets 10 % wide, but a uniform one
/// was off by 8 %, so only narrow buckets keep the promise of 5 % whatever the shape. A series costs
/// 2.4 KiB here and 300 lines on the page; it exists only for a source and class that were seen.
pub(super) static LATENCY: LazyLock<Vec<u64>> =
    LazyLock::new(|| rounded(logarithmic(50_000, 60_000_000_000, 1.048)));

/// Stages and batches, 10 µs to 60 s, each bound half as large again: they say where the time goes, not
/// what the p99 is.
pub(super) static STAGE: LazyLock<Vec<u64>> =
    LazyLock::new(|| rounded(logarithmic(10_000, 60_000_000_000, 1.5)));

/// Texts or tokens of a batch: powers of two.
pub(super) static SIZE: LazyLock<Vec<u64>> = LazyLock::new(|| (0..=17).map(|n| 1 << n).collect());

/// A share, in parts per million: steps of 5 %.
pub(super) static SHARE: LazyLock<Vec<u64>> = LazyLock::new(|| (1..=20).map(|n| n * 50_000).collect());

/// From `first` to the first bound at or above `last`, each `ratio` times the one before.
pub(super) fn logarithmic(first: u64, last: u64, ratio: f64) -> Vec<u64> {
    let mut exact = first as f64;
    let mut bounds = vec![first];
    while exact < last as f64 {
        exact *= ratio;
        bounds.push(exact.round() as u64);
    }
    bounds
}

/// To four digits, so that a page reads well.
fn rounded(bounds: Vec<u64>) -> Vec<u64> {
    let round = |bound: u64| {
        let step = 10_u64.pow(bound.ilog10().saturating_sub(3));
        (bound + step / 2) / step * step
    };
    bounds.into_iter().map(round).collect()
}

/// Counts values by size. Recording is two atomic additions and a binary search.
pub(super) struct Histogram {
    bounds: Bounds,
    /// One more than there are bounds: the last takes what is above all of them.
    counts: Box<[AtomicU64]>,
    /// Wraps after 584 years of nanoseconds, which Prometheus takes for a restart.
    sum: AtomicU64,
}

impl Histogram {
    pub(super) fn new(bounds: Bounds) -> Histogram {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Histogram {
            bounds,
            counts,
            sum: AtomicU64::new(0),
        }
    }

    pub(super) fn record(&self, value: u64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let counts = self.counts.iter().map(|c| c.load(Ordering::Relaxed)).collect();
        Snapshot {
            bounds: self.bounds,
            counts,
            sum: self.sum.load(Ordering::Relaxed),
        }
    }
}

/// What a histogram held at one time.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    bounds: Bounds,
    counts: Vec<u64>,
    /// Of all values.
    pub(super) sum: u64,
}

impl Snapshot {
    /// Adds another one with the same bounds: the versions of a model share its series.
    pub(super) fn add(mut self, other: &Snapshot) -> Snapshot {
        debug_assert_eq!(self.bounds, other.bounds);
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.sum = self.sum.wrapping_add(other.sum);
        self
    }

    /// Each bound with the number of values at or below it.
    pub(super) fn cumulative(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let mut total = 0;
        self.bounds.iter().zip(&self.counts).map(move |(bound, count)| {
            total += count;
            (*bound, total)
        })
    }

    /// The number of values.
    pub(super) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}
