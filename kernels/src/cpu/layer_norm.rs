//! Layer normalisation of rows, in place: mean first, then the variance around it, then the scaling.

use super::memory::Table;
use super::vector::Vector;
use crate::dispatch::Kernel;
use crate::ops::Norm;

/// Normalises each row of `rows`.
pub(crate) struct LayerNorm<'a> {
    pub rows: &'a mut [f32],
    pub norm: &'a Norm<Table>,
}

impl Kernel for LayerNorm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        let (gamma, beta) = (self.norm.gamma.values(), self.norm.beta.values());
        for row in self.rows.chunks_exact_mut(gamma.len()) {
            normalise(v, row, gamma, beta, self.norm.eps);
        }
    }
}

#[inline(always)]
pub(crate) fn normalise<V: Vector>(v: V, row: &mut [f32], gamma: &[f32], beta: &[f32], eps: f32) {
    let width = row.len() as f32;
    let mean = sum::<V, false>(v, row, 0.0) / width;
    let variance = sum::<V, true>(v, row, mean) / width;
    let scale = 1.0 / (variance + eps).sqrt();
    let (means, scales) = (v.splat(mean), v.splat(scale));
    let whole = row.len() / V::LANES * V::LANES;
    let (vectors, rest) = row.split_at_mut(whole);
    let operands = gamma.chunks_exact(V::LANES).zip(beta.chunks_exact(V::LANES));
    for (values, (gamma, beta)) in vectors.chunks_exact_mut(V::LANES).zip(operands) {
        let centred = v.mul(v.sub(v.load(values), means), scales);
        v.store(v.fma(centred, v.load(gamma), v.load(beta)), values);
    }
    for (value, (gamma, beta)) in rest.iter_mut().zip(gamma[whole..].iter().zip(&beta[whole..])) {
        *value = (*value - mean) * scale * gamma + beta;
    }
}

/// The sum of `x − centre`, or of its squares. Four chains hide the latency of the addition.
#[inline(always)]
fn sum<V: Vector, const SQUARES: bool>(v: V, row: &[f32], centre: f32) -> f32 {
    let centres = v.splat(centre);
    let mut sums = [v.splat(0.0); 4];
    let mut blocks = row.chunks_exact(4 * V::LANES);
    for block in &mut blocks {
        for (sum, values) in sums.iter_mut().zip(block.chunks_exact(V::LANES)) {
            *sum = plus::<V, SQUARES>(v, *sum, v.sub(v.load(values), centres));
        }
    }
    let mut vectors = blocks.remainder().chunks_exact(V::LANES);
    for values in &mut vectors {
        sums[0] = plus::<V, SQUARES>(v, sums[0], v.sub(v.load(values), centres));
    }
    let rest = vectors.remainder();
    if !rest.is_empty() {
        let values = v.load_part(rest, centre);
        sums[1] = plus::<V, SQUARES>(v, sums[1], v.sub(values, centres));
    }
    v.sum(v.add(v.add(sums[0], sums[1]), v.add(sums[2], sums[3])))
}

#[inline(always)]
fn plus<V: Vector, const SQUARES: bool>(v: V, sum: V::F, x: V::F) -> V::F {
    if SQUARES { v.fma(x, x, sum) } else { v.add(sum, x) }
}
