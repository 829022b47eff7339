//! Forecast of a batch's time on a device: a + b·tokens + c·Σlen², learned from the batches that ran.

use std::time::Duration;

use super::batch::BatchShape;

/// Batches that are observed before the first forecast.
const FORECAST_AFTER: u32 = 8;
/// Factor by which each batch decays the weight of all earlier ones: a memory of about fifty batches.
const MEMORY: f64 = 0.98;
/// Largest factor between an observed time and its forecast; a time beyond it is clamped. One late clock
/// reading then moves the model little, while a lasting change is still followed.
const DEVIATION_MAX: f64 = 4.0;
/// Ridge term that keeps the equations solvable where all batches look alike; small against the real terms.
const RIDGE: f64 = 1e-6;
/// Unit of squared tokens, so that the terms are of similar size.
const SQUARES: f64 = 64.0;

/// The learned cost of one model on one device.
///
/// Weighted least squares with forgetting, in information form (the sums, not their inverse). So nothing
/// grows without bound while all batches look alike for a long time. Weights are 1/time², which gives small
/// and large batches the same *relative* error. No coefficient is negative: more work never takes less time.
#[derive(Clone, Debug, Default)]
pub struct CostModel {
    /// Decayed Σ w·x·xᵀ over x = (1, tokens, Σlen²/SQUARES).
    xx: [[f64; 3]; 3],
    /// Decayed Σ w·x·y, y in nanoseconds.
    xy: [f64; 3],
    /// The fit: nanoseconds per batch, per token, per SQUARES squared tokens.
    fit: [f64; 3],
    seen: u32,
    /// Decayed Σlen² and tokens: their ratio is the length that attention sees.
    len_sq: f64,
    tokens: f64,
}

impl CostModel {
    /// A model without any observation.
    pub fn new() -> CostModel {
        CostModel::default()
    }

    /// Learns that a batch of `shape` took `took`. A time of zero comes from a broken clock and is ignored.
    pub fn observe(&mut self, shape: BatchShape, took: Duration) {
        if took.is_zero() || shape.tokens == 0 {
            return;
        }
        let x = features(shape);
        let mut y = took.as_nanos() as f64;
        let forecast = dot(&self.fit, &x);
        if self.seen >= FORECAST_AFTER && forecast > 0.0 {
            y = y.clamp(forecast / DEVIATION_MAX, forecast * DEVIATION_MAX);
        }
        let weight = 1.0 / (y * y);
        for (row, &xi) in self.xx.iter_mut().zip(&x) {
            for (cell, &xj) in row.iter_mut().zip(&x) {
                *cell = *cell * MEMORY + weight * xi * xj;
            }
        }
        for (cell, &xi) in self.xy.iter_mut().zip(&x) {
            *cell = *cell * MEMORY + weight * xi * y;
        }
        self.len_sq = self.len_sq * MEMORY + shape.sum_len_sq as f64;
        self.tokens = self.tokens * MEMORY + shape.tokens as f64;
        self.seen = self.seen.saturating_add(1);
        self.fit = solve_non_negative(&self.xx, &self.xy);
    }

    /// Forecast for a batch of `shape`; `None` before enough batches were observed.
    pub fn predict(&self, shape: BatchShape) -> Option<Duration> {
        self.can_forecast()
            .then(|| duration(dot(&self.fit, &features(shape))))
    }

    /// Number of tokens, in texts of `mean_len`, that run within `target`. It is unlimited before enough
    /// batches were observed, and 0 where the fixed cost alone takes longer.
    pub fn tokens_within(&self, target: Duration, mean_len: usize) -> usize {
        let [a, b, c] = self.fit;
        let per_token = b + c * mean_len as f64 / SQUARES;
        if !self.can_forecast() || per_token <= 0.0 {
            return usize::MAX;
        }
        // A cast from f64 saturates at both ends.
        ((target.as_nanos() as f64 - a) / per_token) as usize
    }

    /// Tokens a second that the device sustains in batches of `batch_tokens` tokens, for texts like the
    /// recent ones; `None` before enough batches were observed.
    pub fn capacity_tokens_per_second(&self, batch_tokens: usize) -> Option<f64> {
        if !self.can_forecast() || batch_tokens == 0 {
            return None;
        }
        let tokens = batch_tokens as f64;
        let squares = tokens * self.len_sq / self.tokens / SQUARES;
        let nanos = dot(&self.fit, &[1.0, tokens, squares]);
        (nanos > 0.0).then(|| tokens * 1e9 / nanos)
    }

    fn can_forecast(&self) -> bool {
        self.seen >= FORECAST_AFTER
    }
}

fn features(shape: BatchShape) -> [f64; 3] {
    [1.0, shape.tokens as f64, shape.sum_len_sq as f64 / SQUARES]
}

fn dot(a: &[f64; 3], b: &[f64; 3]) -> f64 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

fn duration(nanos: f64) -> Duration {
    // A cast from f64 saturates, and a NaN becomes zero.
    Duration::from_nanos(nanos as u64)
}

/// The least squares solution without a negative term: the best of the seven subsets of terms whose
/// solution is not negative. Seven systems of at most three unknowns are cheaper than an iteration.
fn solve_non_negative(xx: &[[f64; 3]; 3], xy: &[f64; 3]) -> [f64; 3] {
    let mut best = ([0.0; 3], 0.0);
    for subset in 1_u8..8 {
        let fit = solve_subset(xx, xy, subset);
        if fit.iter().any(|&term| term < 0.0 || !term.is_finite()) {
            continue;
        }
        // The squared error up to a constant: fitᵀ·xx·fit − 2·fitᵀ·xy.
        let error = (0..3)
            .map(|i| fit[i] * (dot(&xx[i], &fit) - 2.0 * xy[i]))
            .sum::<f64>();
        if error < best.1 {
            best = (fit, error);
        }
    }
    best.0
}

/// Gaussian elimination over the terms in `subset`, zero elsewhere. The matrix is positive definite
/// thanks to the ridge, so it needs no pivoting.
fn solve_subset(xx: &[[f64; 3]; 3], xy: &[f64; 3], subset: u8) -> [f64; 3] {
    let chosen = |i: usize| subset & (1 << i) != 0;
    let mut a = [[0.0; 3]; 3];
    let mut y = [0.0; 3];
    for i in 0..3 {
        if !chosen(i) {
            a[i][i] = 1.0;
            continue;
        }
        for j in (0..3).filter(|&j| chosen(j)) {
            a[i][j] = xx[i][j];
        }
        a[i][i] *= 1.0 + RIDGE;
        y[i] = xy[i];
    }
    for i in 0..3 {
        for below in i + 1..3 {
            let factor = a[below][i] / a[i][i];
            let pivot = a[i];
            for (cell, p) in a[below].iter_mut().zip(pivot) {
                *cell -= factor * p;
            }
            y[below] -= factor * y[i];
        }
    }
    let mut fit = [0.0; 3];
    for i in (0..3).rev() {
        let known: f64 = (i + 1..3).map(|j| a[i][j] * fit[j]).sum();
        fit[i] = (y[i] - known) / a[i][i];
    }
    fit
}

#[cfg(test)]
mod tests;
