//! How long a batch takes on this device: a + b·tokens + c·Σlen², learned from the batches that ran.

use std::time::Duration;

use super::batch::BatchShape;

/// Batches seen before there is an opinion.
const OPINION_AFTER: u32 = 8;
/// What one batch leaves of the weight of all earlier ones: a memory of about fifty batches.
const MEMORY: f64 = 0.98;
/// A time further than this factor from the forecast is pulled to it, so that one late clock reading
/// moves the model little while a lasting change is still followed.
const SURPRISE_MAX: f64 = 4.0;
/// Keeps the equations solvable where all batches look alike; small against the real terms.
const RIDGE: f64 = 1e-6;
/// Squared tokens are counted in units of this, so that the terms have like sizes.
const SQUARES: f64 = 64.0;

/// The learned cost of one model on one device.
///
/// Weighted least squares with forgetting, in information form (the sums, not their inverse): with
/// batches that all look alike for a long time nothing grows without bound. Weights are 1/time², so
/// that small and large batches are met with the same *relative* error. The coefficients are never
/// negative: more work never takes less time.
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
    /// A model without an opinion.
    pub fn new() -> CostModel {
        CostModel::default()
    }

    /// Learns that a batch of `shape` took `took`. A time of zero is a broken clock and teaches nothing.
    pub fn observe(&mut self, shape: BatchShape, took: Duration) {
        if took.is_zero() || shape.tokens == 0 {
            return;
        }
        let x = features(shape);
        let mut y = took.as_nanos() as f64;
        let forecast = dot(&self.fit, &x);
        if self.seen >= OPINION_AFTER && forecast > 0.0 {
            y = y.clamp(forecast / SURPRISE_MAX, forecast * SURPRISE_MAX);
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

    /// How long a batch of `shape` should take; `None` before there is an opinion.
    pub fn predict(&self, shape: BatchShape) -> Option<Duration> {
        self.has_opinion()
            .then(|| duration(dot(&self.fit, &features(shape))))
    }

    /// How many tokens, in texts of `mean_len`, run within `target`; no limit before there is an
    /// opinion, none at all where the fixed cost alone takes longer.
    pub fn tokens_within(&self, target: Duration, mean_len: usize) -> usize {
        let [a, b, c] = self.fit;
        let per_token = b + c * mean_len as f64 / SQUARES;
        if !self.has_opinion() || per_token <= 0.0 {
            return usize::MAX;
        }
        // A cast from f64 saturates at both ends.
        ((target.as_nanos() as f64 - a) / per_token) as usize
    }

    /// Tokens a second that the device can sustain in batches of `batch_tokens` tokens, in texts like
    /// those it ran lately; `None` before there is an opinion.
    pub fn capacity_tokens_per_second(&self, batch_tokens: usize) -> Option<f64> {
        if !self.has_opinion() || batch_tokens == 0 {
            return None;
        }
        let tokens = batch_tokens as f64;
        let squares = tokens * self.len_sq / self.tokens / SQUARES;
        let nanos = dot(&self.fit, &[1.0, tokens, squares]);
        (nanos > 0.0).then(|| tokens * 1e9 / nanos)
    }

    fn has_opinion(&self) -> bool {
        self.seen >= OPINION_AFTER
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

/// The least squares solution with no negative term: of all seven choices of terms, the best one whose
/// solution is not negative. Seven systems of at most three unknowns are cheaper than to iterate.
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
