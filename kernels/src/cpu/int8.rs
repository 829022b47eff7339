//! Products in bytes: rows and weights quantised to integers, summed exactly, and scaled back.
//!
//! A row of activations has one scale, found when it is quantised; an output has one for all its weights.
//! Both are symmetric: the value is the integer times the scale, and the integers reach from −127 to 127.
//! A row is quantised alone, so its neighbours change nothing; the sums are integers, so every
//! processor gets the same ones.
//!
//! Activations are stored with 128 added, because the instruction multiplies unsigned bytes by signed ones.
//! This adds 128 times the sum of the weights to each sum. That is known at load, and sums start at its negative.

use super::gemm::{PANEL, Panels, Product};
#[cfg(target_arch = "aarch64")]
use super::int8_neon::{NeonDot, NeonPairs};
use super::int8_portable::Plain;
use super::memory::{Lines, bytes_mut};
use super::vector::{LANES_MAX, Vector};
use super::vector_portable::ROUNDER;
#[cfg(target_arch = "x86_64")]
use super::{
    int8_avx2::{AvxVnni, Pairs},
    int8_avx512::Avx512Vnni,
};
use crate::dispatch::Kernel;
use crate::ops::KernelError;

/// The largest integer of a quantised value.
const TOP: f32 = 127.0;

/// A row whose largest value is smaller is taken for zeros: 127 divided by it would be infinite.
const LEAST: f32 = 1e-30;

/// Bytes in a word.
const WORD: usize = 4;

/// The longest row whose sum fits 32 bits: 255 · 127 · 65,536 < 2³¹.
const INP_MAX: usize = 65_536;

/// Instructions by which this processor multiplies bytes. A value exists only where the processor has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bytes {
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni(Avx512Vnni),
    #[cfg(target_arch = "x86_64")]
    AvxVnni(AvxVnni),
    #[cfg(target_arch = "x86_64")]
    Pairs(Pairs),
    #[cfg(target_arch = "aarch64")]
    NeonDot(NeonDot),
    #[cfg(target_arch = "aarch64")]
    NeonPairs(NeonPairs),
    Plain(Plain),
}

/// Code that is compiled once for each way to multiply bytes; see [`Kernel`].
pub(crate) trait DotKernel {
    type Output;
    fn run<D: Dot>(self, dot: D) -> Self::Output;
}

impl Bytes {
    /// All ways of this processor, the fastest first.
    pub(crate) fn supported() -> Vec<Self> {
        let mut ways = Vec::with_capacity(4);
        #[cfg(target_arch = "x86_64")]
        {
            ways.extend(Avx512Vnni::detect().map(Self::Avx512Vnni));
            ways.extend(AvxVnni::detect().map(Self::AvxVnni));
            ways.extend(Pairs::detect().map(Self::Pairs));
        }
        #[cfg(target_arch = "aarch64")]
        {
            ways.extend(NeonDot::detect().map(Self::NeonDot));
            ways.extend(NeonPairs::detect().map(Self::NeonPairs));
        }
        ways.push(Self::Plain(Plain));
        ways
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni(_) => "avx512-vnni",
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni(_) => "avx-vnni",
            #[cfg(target_arch = "x86_64")]
            Self::Pairs(_) => "avx2",
            #[cfg(target_arch = "aarch64")]
            Self::NeonDot(_) => "neon-dotprod",
            #[cfg(target_arch = "aarch64")]
            Self::NeonPairs(_) => "neon",
            Self::Plain(_) => "portable",
        }
    }

    pub(crate) fn run<K: DotKernel>(self, kernel: K) -> K::Output {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni(proof) => proof.enter(kernel),
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni(proof) => proof.enter(kernel),
            #[cfg(target_arch = "x86_64")]
            Self::Pairs(proof) => proof.enter(kernel),
            #[cfg(target_arch = "aarch64")]
            Self::NeonDot(proof) => proof.enter(kernel),
            #[cfg(target_arch = "aarch64")]
            Self::NeonPairs(proof) => proof.enter(kernel),
            Self::Plain(proof) => kernel.run(proof),
        }
    }
}

/// Products of four bytes in each lane. The value itself is the proof that the processor has them.
pub(crate) trait Dot: Copy {
    type V: Vector;
    /// A register of words of four bytes.
    type Words: Copy;
    /// A register of i32.
    type Sums: Copy;
    const TILE_ROWS: usize;
    /// Whether `a` takes part with the 128 that was added to it.
    const OFFSET: bool;

    fn vector(self) -> Self::V;
    /// # Safety
    /// `from` is valid for reading as many words as a register has.
    unsafe fn load_at(self, from: *const u32) -> Self::Words;
    /// # Safety
    /// `from` is valid for reading one word.
    unsafe fn spread_at(self, from: *const u32) -> Self::Words;
    /// The first values of `from`, as many as a register has. Panics where there are fewer.
    fn sums(self, from: &[i32]) -> Self::Sums;
    /// Adds to the sum of each lane the four products of the bytes of `a` with those of `b`.
    fn dot(self, a: Self::Words, b: Self::Words, sums: Self::Sums) -> Self::Sums;
    /// Each sum as the nearest f32, ties to even.
    fn to_f32(self, sums: Self::Sums) -> <Self::V as Vector>::F;
}

/// Weights in bytes.
pub(crate) struct ByteMatrix {
    pub panels: Panels<u32>,
    /// One for each output.
    scales: Lines,
    /// Start values of the outputs' sums.
    starts: Lines<i32>,
}

impl ByteMatrix {
    /// Quantises and packs `weight`, row-major `[out, inp]`, in rows of `width` words: zeros where a row has no more.
    pub(crate) fn new(weight: &[f32], out: usize, inp: usize, width: usize) -> Result<Self, KernelError> {
        if inp > INP_MAX {
            return Err(KernelError::Unsupported {
                kernel: "matrix",
                operand: "inputs in int8",
                value: inp,
                supported: "1 to 65536",
            });
        }
        let padded = out.next_multiple_of(PANEL);
        let (mut scales, mut starts) = (Lines::zeroed(padded), Lines::zeroed(padded));
        let mut words = Vec::with_capacity(out * width);
        for (column, row) in weight.chunks_exact(inp).enumerate() {
            let (scale, integers) = quantised(row);
            scales[column] = scale;
            starts[column] = -128 * integers.iter().map(|&q| i32::from(q)).sum::<i32>();
            words.extend(integers.chunks(WORD).map(|four| {
                let mut word = [0; WORD];
                for (byte, q) in word.iter_mut().zip(four) {
                    *byte = q.cast_unsigned();
                }
                u32::from_ne_bytes(word)
            }));
            words.resize((column + 1) * width, 0);
        }
        Ok(Self {
            panels: Panels::pack(&words, out, width),
            scales,
            starts,
        })
    }

    /// Start values of sums, and their scales, from output `column` on.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(crate) fn columns(&self, column: usize) -> (&[i32], &[f32]) {
        (&self.starts[column..], &self.scales[column..])
    }

    /// Product of the panel that starts with output `column`, with rows of these scales.
    #[inline(always)]
    pub(crate) fn product<'a, D: Dot>(&'a self, dot: D, rows: &'a [f32], column: usize) -> Quantised<'a, D> {
        Quantised {
            dot,
            rows,
            scales: &self.scales[column..column + PANEL],
            starts: &self.starts[column..column + PANEL],
        }
    }
}

/// Words of a row of `inp` bytes.
pub(crate) fn words(inp: usize) -> usize {
    inp.div_ceil(WORD)
}

/// The scale and the integers of one row of weights. A row with a value that is not finite has a scale that is
/// NaN, and so have its results.
fn quantised(row: &[f32]) -> (f32, Vec<i8>) {
    let top = row.iter().fold(0f32, |top, value| top.max(value.abs()));
    let finite = row.iter().all(|value| value.is_finite());
    let inverse = if top > LEAST { TOP / top } else { 0.0 };
    let integers = row
        .iter()
        .map(|value| ((value * inverse + ROUNDER) - ROUNDER) as i8)
        .collect();
    (if finite { top / TOP } else { f32::NAN }, integers)
}

/// Quantises rows of activations: `words` holds as many rows as `scales` has values.
pub(crate) struct Quantise<'a> {
    pub x: &'a [f32],
    pub words: &'a mut [u32],
    pub scales: &'a mut [f32],
}

impl Kernel for Quantise<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        let (k, width) = (
            self.x.len() / self.scales.len(),
            self.words.len() / self.scales.len(),
        );
        let rows = self.x.chunks_exact(k).zip(self.words.chunks_exact_mut(width));
        for ((row, words), scale) in rows.zip(self.scales) {
            *scale = quantise(v, row, bytes_mut(words));
        }
    }
}

/// Fills the first bytes of `to` with the integers of `row`, each with 128 added, and returns their scale:
/// NaN where a value is not finite, which makes the whole row's results NaN.
#[inline(always)]
fn quantise<V: Vector>(v: V, row: &[f32], to: &mut [u8]) -> f32 {
    let (top, finite) = extent(v, row);
    let inverse = if top > LEAST { TOP / top } else { 0.0 };
    let inverses = v.splat(inverse);
    let whole = row.len() / V::LANES * V::LANES;
    let (vectors, rest) = row.split_at(whole);
    for (values, bytes) in vectors.chunks_exact(V::LANES).zip(to.chunks_exact_mut(V::LANES)) {
        v.store_bytes(v.mul(v.load(values), inverses), bytes);
    }
    if !rest.is_empty() {
        let mut bytes = [0; LANES_MAX];
        v.store_bytes(v.mul(v.load_part(rest, 0.0), inverses), &mut bytes);
        to[whole..whole + rest.len()].copy_from_slice(&bytes[..rest.len()]);
    }
    if finite { top / TOP } else { f32::NAN }
}

/// The largest absolute value of `row`, and whether all are finite. Four chains hide the latencies.
#[inline(always)]
fn extent<V: Vector>(v: V, row: &[f32]) -> (f32, bool) {
    let zero = v.splat(0.0);
    let (mut tops, mut nulls) = ([zero; 4], [zero; 4]);
    let mut take = |chain: usize, x: V::F| {
        // A NaN may be lost here, but not below: only finite values times zero are zero.
        tops[chain] = v.max(tops[chain], v.max(v.sub(zero, x), x));
        nulls[chain] = v.fma(x, zero, nulls[chain]);
    };
    let mut blocks = row.chunks_exact(4 * V::LANES);
    for block in &mut blocks {
        for (chain, values) in block.chunks_exact(V::LANES).enumerate() {
            take(chain, v.load(values));
        }
    }
    let mut vectors = blocks.remainder().chunks_exact(V::LANES);
    for (chain, values) in (&mut vectors).enumerate() {
        take(chain, v.load(values));
    }
    let rest = vectors.remainder();
    if !rest.is_empty() {
        take(3, v.load_part(rest, 0.0));
    }
    let top = v.top(v.max(v.max(tops[0], tops[1]), v.max(tops[2], tops[3])));
    let null = v.sum(v.add(v.add(nulls[0], nulls[1]), v.add(nulls[2], nulls[3])));
    (top, null == 0.0)
}

/// The product of quantised rows with quantised weights.
#[derive(Clone, Copy)]
pub(crate) struct Quantised<'a, D> {
    pub dot: D,
    /// One scale for each row.
    pub rows: &'a [f32],
    /// One for each of the panel's outputs.
    pub scales: &'a [f32],
    pub starts: &'a [i32],
}

impl<D: Dot> Product for Quantised<'_, D> {
    type V = D::V;
    type Word = u32;
    type Words = D::Words;
    type Sums = D::Sums;
    const TILE_ROWS: usize = D::TILE_ROWS;

    #[inline(always)]
    fn vector(self) -> D::V {
        self.dot.vector()
    }

    #[inline(always)]
    unsafe fn load_at(self, from: *const u32) -> D::Words {
        // SAFETY: the caller vouches for a register of words.
        unsafe { self.dot.load_at(from) }
    }

    #[inline(always)]
    unsafe fn spread_at(self, from: *const u32) -> D::Words {
        // SAFETY: the caller vouches for one word.
        unsafe { self.dot.spread_at(from) }
    }

    #[inline(always)]
    fn start(self, column: usize) -> D::Sums {
        let zeros = [0; LANES_MAX];
        let starts = if D::OFFSET { &self.starts[column..] } else { &zeros };
        self.dot.sums(starts)
    }

    #[inline(always)]
    fn step(self, a: D::Words, b: D::Words, sums: D::Sums) -> D::Sums {
        self.dot.dot(a, b, sums)
    }

    /// Two products and no fused one, so that every path rounds alike.
    #[inline(always)]
    fn finish(self, sums: D::Sums, row: usize, column: usize) -> <D::V as Vector>::F {
        let v = self.dot.vector();
        let scaled = v.mul(self.dot.to_f32(sums), v.splat(self.rows[row]));
        v.mul(scaled, v.load(&self.scales[column..]))
    }
}
