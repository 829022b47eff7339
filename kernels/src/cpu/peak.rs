//! The most that one core can do: multiply-adds on registers alone, the limit that the products are held against.

use super::vector::Vector;
use crate::dispatch::{Kernel, Path};

/// Independent sums: enough to hide the latency of a multiply-add on two ports, few enough for the registers.
const CHAINS: usize = 12;

/// Runs `rounds` rounds of multiply-adds on `path` and returns the number of floating-point operations
/// that this was, and their result, which is of no interest but must be computed.
pub fn multiply_adds(path: Path, rounds: usize) -> (f64, f32) {
    path.run(Burst { rounds })
}

struct Burst {
    rounds: usize,
}

impl Kernel for Burst {
    type Output = (f64, f32);

    #[inline(always)]
    fn run<V: Vector>(self, v: V) -> (f64, f32) {
        let (factor, shift) = (
            v.splat(std::hint::black_box(0.999)),
            v.splat(std::hint::black_box(0.001)),
        );
        let mut sums = [v.splat(std::hint::black_box(1.0)); CHAINS];
        for _ in 0..self.rounds {
            for sum in &mut sums {
                *sum = v.fma(*sum, factor, shift);
            }
        }
        let result = sums.iter().map(|&sum| v.sum(sum)).sum();
        ((self.rounds * CHAINS * V::LANES * 2) as f64, result)
    }
}
