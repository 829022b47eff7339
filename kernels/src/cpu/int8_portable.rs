//! Bytes without intrinsics: four lanes in plain integers.

use super::int8::Dot;
use super::vector::Vector;
use super::vector_portable::Portable;

/// Plain Rust; needs no proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Plain;

impl Dot for Plain {
    type V = Portable;
    type Words = [u32; 4];
    type Sums = [i32; 4];
    const TILE_ROWS: usize = Portable::TILE_ROWS;
    const OFFSET: bool = true;

    #[inline(always)]
    fn vector(self) -> Portable {
        Portable
    }

    #[inline(always)]
    unsafe fn load_at(self, from: *const u32) -> [u32; 4] {
        // SAFETY: the caller vouches for four words; an array needs no more alignment than they do.
        unsafe { from.cast::<[u32; 4]>().read() }
    }

    #[inline(always)]
    unsafe fn spread_at(self, from: *const u32) -> [u32; 4] {
        // SAFETY: the caller vouches for one word.
        [unsafe { *from }; 4]
    }

    #[inline(always)]
    fn sums(self, from: &[i32]) -> [i32; 4] {
        [from[0], from[1], from[2], from[3]]
    }

    #[inline(always)]
    fn dot(self, a: [u32; 4], b: [u32; 4], mut sums: [i32; 4]) -> [i32; 4] {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            for (a, b) in a.to_ne_bytes().into_iter().zip(b.to_ne_bytes()) {
                *sum += i32::from(a) * i32::from(b.cast_signed());
            }
        }
        sums
    }

    #[inline(always)]
    fn to_f32(self, sums: [i32; 4]) -> <Portable as Vector>::F {
        sums.map(|sum| sum as f32)
    }
}
