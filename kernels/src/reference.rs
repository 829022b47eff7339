//! The slow truth: every operation written down as its formula, in f64, to test the fast ones against.
//!
//! Callers give operands whose shapes fit; the devices check theirs before they come this far.

use crate::ops::{Activation, Pooling};

/// The value of `activation` at `x`.
pub fn activation(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::None => x,
        Activation::Gelu => 0.5 * x * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2)),
        Activation::GeluTanh => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
            0.5 * x * (1.0 + inner.tanh())
        }
        // Written so that NaN stays NaN, which f64::max would swallow.
        Activation::Relu => {
            if x < 0.0 {
                0.0
            } else {
                x
            }
        }
        Activation::Tanh => x.tanh(),
    }
}

/// The error function: its Taylor series near zero, the continued fraction of erfc further out.
pub fn erf(x: f64) -> f64 {
    let size = x.abs();
    if size.is_nan() {
        return x;
    }
    if size > 6.0 {
        return 1f64.copysign(x);
    }
    if size < 2.5 {
        let (mut term, mut sum) = (x, x);
        for n in 1..80 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        return sum * std::f64::consts::FRAC_2_SQRT_PI;
    }
    let mut fraction = size;
    for n in (1..80).rev() {
        fraction = size + f64::from(n) / 2.0 / fraction;
    }
    let tail = (-size * size).exp() / fraction / std::f64::consts::PI.sqrt();
    (1.0 - tail).copysign(x)
}

/// `activation(x · weightᵀ + bias)`, row-major `[x.len() / inp, out]`.
pub fn linear(
    x: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    inp: usize,
    activation: Activation,
) -> Vec<f32> {
    let mut y = Vec::new();
    for row in x.chunks_exact(inp) {
        for (column, weights) in weight.chunks_exact(inp).enumerate() {
            let sum = dot(row, weights) + bias.map_or(0.0, |bias| f64::from(bias[column]));
            y.push(self::activation(activation, sum) as f32);
        }
    }
    y
}

/// The same with rows and weights quantised to integers of ±127, symmetric, each row by its largest value, summed
/// exactly; rows of finite values, none of them all but zero. The rounding is the fast one's, value by value.
pub fn linear_int8(x: &[f32], weight: &[f32], bias: Option<&[f32]>, inp: usize) -> Vec<f32> {
    let quantised = |row: &[f32]| -> (f32, Vec<i64>) {
        let top = row.iter().fold(0f32, |top, value| top.max(value.abs()));
        let inverse = if top == 0.0 { 0.0 } else { 127.0 / top };
        let integers = row.iter().map(|value| (value * inverse).round_ties_even() as i64);
        (top / 127.0, integers.collect())
    };
    let weights: Vec<_> = weight.chunks_exact(inp).map(quantised).collect();
    let mut y = Vec::new();
    for row in x.chunks_exact(inp) {
        let (scale, row) = quantised(row);
        for (column, (weight_scale, weights)) in weights.iter().enumerate() {
            let sum: i64 = row.iter().zip(weights).map(|(a, b)| a * b).sum();
            y.push(sum as f32 * scale * weight_scale + bias.map_or(0.0, |bias| bias[column]));
        }
    }
    y
}

/// Normalises each row of `x` in place.
pub fn layer_norm(x: &mut [f32], gamma: &[f32], beta: &[f32], eps: f32) {
    let width = gamma.len() as f64;
    for row in x.chunks_exact_mut(gamma.len()) {
        let mean = row.iter().map(|&v| f64::from(v)).sum::<f64>() / width;
        let variance = row.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / width;
        let scale = 1.0 / (variance + f64::from(eps)).sqrt();
        for ((value, &gamma), &beta) in row.iter_mut().zip(gamma).zip(beta) {
            *value = ((f64::from(*value) - mean) * scale * f64::from(gamma) + f64::from(beta)) as f32;
        }
    }
}

/// The sum of the rows that `ids`, `positions` and `kinds` name in their tables of `cols` columns.
/// An empty table adds nothing; empty `kinds` are all 0.
pub fn embed(
    (ids, word): (&[u32], &[f32]),
    (positions, position): (&[u32], &[f32]),
    (kinds, kind): (&[u32], &[f32]),
    cols: usize,
) -> Vec<f32> {
    let mut sums = Vec::with_capacity(ids.len() * cols);
    for (token, &id) in ids.iter().enumerate() {
        for column in 0..cols {
            let mut sum = word[id as usize * cols + column];
            if !position.is_empty() {
                sum += position[positions[token] as usize * cols + column];
            }
            if !kind.is_empty() {
                let row = kinds.get(token).map_or(0, |&kind| kind as usize);
                sum += kind[row * cols + column];
            }
            sums.push(sum);
        }
    }
    sums
}

/// Attention of each text over itself. `bias` is `[heads, 2·len_max − 1]`.
pub fn attention(
    qkv: &[f32],
    cu_seqlens: &[u32],
    heads: usize,
    head_dim: usize,
    bias: Option<&[f32]>,
) -> Vec<f32> {
    let hidden = heads * head_dim;
    let rows = qkv.len() / (3 * hidden);
    let part = |row: usize, part: usize, head: usize| {
        let start = row * 3 * hidden + part * hidden + head * head_dim;
        &qkv[start..start + head_dim]
    };
    let mut out = vec![0.0; rows * hidden];
    for text in cu_seqlens.windows(2) {
        let (start, end) = (text[0] as usize, text[1] as usize);
        for head in 0..heads {
            for i in start..end {
                let mut scores: Vec<f64> = (start..end)
                    .map(|j| dot(part(i, 0, head), part(j, 1, head)) / (head_dim as f64).sqrt())
                    .collect();
                if let Some(bias) = bias {
                    let width = bias.len() / heads;
                    let zero = head * width + width / 2;
                    for (j, score) in (start..end).zip(&mut scores) {
                        *score += f64::from(bias[zero + j - i]);
                    }
                }
                softmax(&mut scores);
                let mut sums = vec![0.0_f64; head_dim];
                for (j, p) in (start..end).zip(&scores) {
                    for (sum, value) in sums.iter_mut().zip(part(j, 2, head)) {
                        *sum += p * f64::from(*value);
                    }
                }
                let place = i * hidden + head * head_dim;
                for (value, sum) in out[place..].iter_mut().zip(sums) {
                    *value = sum as f32;
                }
            }
        }
    }
    out
}

/// One row of `cols` columns for each text.
pub fn pool(x: &[f32], cu_seqlens: &[u32], cols: usize, pooling: Pooling) -> Vec<f32> {
    let mut out = Vec::new();
    for text in cu_seqlens.windows(2) {
        let rows = &x[text[0] as usize * cols..text[1] as usize * cols];
        match pooling {
            Pooling::Cls => out.extend_from_slice(&rows[..cols]),
            Pooling::Mean => out.extend((0..cols).map(|column| {
                let sum: f64 = rows
                    .iter()
                    .skip(column)
                    .step_by(cols)
                    .map(|&v| f64::from(v))
                    .sum();
                (sum / (rows.len() / cols) as f64) as f32
            })),
        }
    }
    out
}

/// In several sums, which need not wait for each other: texts of 8192 tokens take billions of these steps.
fn dot(a: &[f32], b: &[f32]) -> f64 {
    let mut sums = [0.0; 8];
    for (a, b) in a.chunks(sums.len()).zip(b.chunks(sums.len())) {
        for (sum, (&a, &b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += f64::from(a) * f64::from(b);
        }
    }
    sums.iter().sum()
}

fn softmax(scores: &mut [f64]) {
    let top = scores
        .iter()
        .fold(f64::NEG_INFINITY, |top, &score| top.max(score));
    let mut sum = 0.0;
    for score in scores.iter_mut() {
        *score = (*score - top).exp();
        sum += *score;
    }
    for score in scores {
        *score /= sum;
    }
}
