//! The activation functions, on vectors.

use super::vector::Vector;
use crate::ops::Activation;

/// `erf(x/√2) = x · P(x²) / Q(x²)` on |x| ≤ [`ERF_END`], fitted so that the error of `x/2 · erf`
/// in GELU is least and even: 5e-8 before rounding. Highest power first.
const ERF_P: [f32; 7] = [
    2.232_197_7e-10,
    -4.650_077e-8,
    7.398_648_3e-6,
    4.100_496e-4,
    9.435_561_4e-3,
    7.818_030_8e-2,
    0.797_883_1,
];
const ERF_Q: [f32; 5] = [7.466_731e-5, 2.023_197_5e-3, 3.094_435_3e-2, 0.264_643_23, 1.0];
/// From here on erf(x/√2) is 1 in f32.
const ERF_END: f32 = 5.5;

/// Beyond this, tanh is ±1 in f32; the bound keeps its exponential finite.
const TANH_END: f32 = 10.0;

/// Applies `activation` to each value of `row`.
#[inline(always)]
pub(crate) fn activate<V: Vector>(v: V, activation: Activation, row: &mut [f32]) {
    match activation {
        Activation::None => {}
        Activation::Gelu => apply::<V, Gelu>(v, row),
        Activation::GeluTanh => apply::<V, GeluTanh>(v, row),
        Activation::Relu => apply::<V, Relu>(v, row),
        Activation::Tanh => apply::<V, Tanh>(v, row),
    }
}

/// One function of one vector.
pub(crate) trait Function {
    fn of<V: Vector>(v: V, x: V::F) -> V::F;
}

#[inline(always)]
fn apply<V: Vector, F: Function>(v: V, row: &mut [f32]) {
    let mut vectors = row.chunks_exact_mut(V::LANES);
    for values in &mut vectors {
        v.store(F::of(v, v.load(values)), values);
    }
    let rest = vectors.into_remainder();
    if !rest.is_empty() {
        v.store_part(F::of(v, v.load_part(rest, 0.0)), rest);
    }
}

/// No activation.
#[cfg(target_arch = "x86_64")]
pub(crate) struct Identity;

#[cfg(target_arch = "x86_64")]
impl Function for Identity {
    #[inline(always)]
    fn of<V: Vector>(_: V, x: V::F) -> V::F {
        x
    }
}

pub(crate) struct Gelu;

impl Function for Gelu {
    #[inline(always)]
    fn of<V: Vector>(v: V, x: V::F) -> V::F {
        let bounded = v.min(v.splat(ERF_END), v.max(v.splat(-ERF_END), x));
        let square = v.mul(bounded, bounded);
        let p = v.mul(bounded, polynomial(v, &ERF_P, square));
        let erf = v.div(p, polynomial(v, &ERF_Q, square));
        let erf = v.min(v.splat(1.0), v.max(v.splat(-1.0), erf));
        let half = v.mul(v.splat(0.5), x);
        v.fma(half, erf, half)
    }
}

pub(crate) struct GeluTanh;

impl Function for GeluTanh {
    /// `½ · (1 + tanh(y))` is `1 / (1 + e^(−2y))`.
    #[inline(always)]
    fn of<V: Vector>(v: V, x: V::F) -> V::F {
        const SLOPE: f32 = -2.0 * 0.797_884_6 * std::f32::consts::LOG2_E;
        let cubic = v.mul(v.fma(v.mul(x, x), v.splat(0.044_715), v.splat(1.0)), x);
        let power = v.exp2(v.mul(cubic, v.splat(SLOPE)));
        v.div(x, v.add(v.splat(1.0), power))
    }
}

pub(crate) struct Relu;

impl Function for Relu {
    #[inline(always)]
    fn of<V: Vector>(v: V, x: V::F) -> V::F {
        v.max(v.splat(0.0), x)
    }
}

pub(crate) struct Tanh;

impl Function for Tanh {
    /// `tanh(x) = 1 − 2 / (e^(2x) + 1)`, exact to rounding in absolute terms.
    #[inline(always)]
    fn of<V: Vector>(v: V, x: V::F) -> V::F {
        let bounded = v.min(v.splat(TANH_END), v.max(v.splat(-TANH_END), x));
        let power = v.exp2(v.mul(bounded, v.splat(2.0 * std::f32::consts::LOG2_E)));
        v.sub(v.splat(1.0), v.div(v.splat(2.0), v.add(power, v.splat(1.0))))
    }
}

#[inline(always)]
fn polynomial<V: Vector>(v: V, coefficients: &[f32], x: V::F) -> V::F {
    let mut sum = v.splat(coefficients[0]);
    for &coefficient in &coefficients[1..] {
        sum = v.fma(sum, x, v.splat(coefficient));
    }
    sum
}
