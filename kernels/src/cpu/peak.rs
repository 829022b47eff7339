//! The most that one core can do, which the products are held against: multiply-adds on registers alone, and
//! words read from memory.

#[cfg(target_arch = "x86_64")]
use super::amx;
#[cfg(target_arch = "x86_64")]
use super::bf16::{Avx512Bf16, Bf16Kernel};
use super::gemm::{PANEL, Product, Singles, TILE_ROWS_MAX};
use super::int8::{Dot, DotKernel, Quantised};
#[cfg(target_arch = "x86_64")]
use super::tiled::Tiled;
use super::vector::{LANES_MAX, Vector};
use crate::dispatch::{Kernel, Path};
#[cfg(target_arch = "x86_64")]
use crate::precision::Bf16;
use crate::precision::{Kind, Precision};

/// Sums of the largest tile: two registers for each of its rows.
const SUMS_MAX: usize = 2 * TILE_ROWS_MAX;
/// Sums while reading: enough to hide the latency of an addition.
const CHAINS: usize = 8;

/// Runs `rounds` rounds of multiply-adds in `precision`, in f32 on `path`, and returns the number of operations
/// that this was, and their result, which is of no interest but must be computed.
pub fn multiply_adds(path: Path, precision: Precision, rounds: usize) -> (f64, f32) {
    let burst = Burst { rounds };
    let (factors, (operations, sum)) = match precision.0 {
        Kind::Singles => (1, path.run(burst)),
        #[cfg(target_arch = "x86_64")]
        Kind::Bf16(Bf16::Vectors(proof)) => (2, proof.enter(burst)),
        #[cfg(target_arch = "x86_64")]
        Kind::Bf16(Bf16::Tiles(proof)) => (2, tiles(proof, rounds)),
        Kind::Bytes(bytes) => (4, bytes.run(burst)),
        #[cfg(target_arch = "x86_64")]
        Kind::TiledBytes(proof) => (4, tiles(proof, rounds)),
    };
    ((operations * factors * 2) as f64, sum)
}

/// The same on tiles, all of zeros.
#[cfg(target_arch = "x86_64")]
fn tiles<T: Tiled>(proof: T, rounds: usize) -> (usize, f32) {
    (amx::burst(proof.amx(), T::WORDS, rounds), 0.0)
}

/// Reads all of `values` once and returns their sum.
pub fn read(path: Path, values: &[f32]) -> f32 {
    path.run(Read { values })
}

struct Burst {
    rounds: usize,
}

impl Burst {
    /// Multiplies into as many independent sums as a tile has. Returns the words multiplied, and the sum of all.
    #[inline(always)]
    fn measure<P: Product>(self, p: P) -> (usize, f32) {
        let words = std::hint::black_box([P::Word::default(); LANES_MAX]);
        // SAFETY: no register has more words than the array.
        let (a, b) = unsafe { (p.spread_at(words.as_ptr()), p.load_at(words.as_ptr())) };
        let count = 2 * P::TILE_ROWS;
        // Sums that the compiler knows to be alike would be shuffled through memory instead of kept in registers.
        let mut sums = std::hint::black_box([p.start(0); SUMS_MAX]);
        for _ in 0..self.rounds {
            for sums in &mut sums[..count] {
                *sums = p.step(a, b, *sums);
            }
        }
        let v = p.vector();
        let result = sums.iter().map(|&sums| v.sum(p.finish(sums, 0, 0))).sum();
        (self.rounds * count * P::V::LANES, result)
    }
}

impl Kernel for Burst {
    type Output = (usize, f32);

    #[inline(always)]
    fn run<V: Vector>(self, v: V) -> (usize, f32) {
        self.measure(Singles(v))
    }
}

#[cfg(target_arch = "x86_64")]
impl Bf16Kernel for Burst {
    type Output = (usize, f32);

    #[inline(always)]
    fn run(self, proof: Avx512Bf16) -> (usize, f32) {
        self.measure(proof)
    }
}

impl DotKernel for Burst {
    type Output = (usize, f32);

    #[inline(always)]
    fn run<D: Dot>(self, dot: D) -> (usize, f32) {
        self.measure(Quantised {
            dot,
            rows: &[1.0],
            scales: &[1.0; PANEL],
            starts: &[0; PANEL],
        })
    }
}

struct Read<'a> {
    values: &'a [f32],
}

impl Kernel for Read<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<V: Vector>(self, v: V) -> f32 {
        let mut sums = [v.splat(0.0); CHAINS];
        for block in self.values.chunks_exact(CHAINS * V::LANES) {
            for (sum, values) in sums.iter_mut().zip(block.chunks_exact(V::LANES)) {
                *sum = v.add(*sum, v.load(values));
            }
        }
        sums.iter().map(|&sum| v.sum(sum)).sum()
    }
}
