//! Bytes in registers of 16 words: AVX512-VNNI, which multiplies and sums all four of a lane at once.

use std::arch::x86_64::{
    __m512i, _mm512_cvtepi32_ps, _mm512_dpbusd_epi32, _mm512_loadu_si512, _mm512_set1_epi32,
};

use super::int8::{Dot, DotKernel};
use super::vector::Vector;
use super::vector_avx512::Avx512;

/// Proof that the processor has AVX-512F and AVX512-VNNI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Avx512Vnni(Avx512);

impl Avx512Vnni {
    pub(crate) fn detect() -> Option<Self> {
        Avx512::detect()
            .filter(|_| is_x86_feature_detected!("avx512vnni"))
            .map(Self)
    }

    pub(crate) fn enter<K: DotKernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx512f,avx512vnni")]
        fn entry<K: DotKernel>(proof: Avx512Vnni, kernel: K) -> K::Output {
            kernel.run(proof)
        }
        // SAFETY: `detect` alone makes the proof, after it found both features.
        unsafe { entry(self, kernel) }
    }
}

macro_rules! proven {
    ($instruction:expr) => {
        // SAFETY: `detect` alone makes the proof that `self` is, after it found AVX-512F and AVX512-VNNI.
        unsafe { $instruction }
    };
}

impl Dot for Avx512Vnni {
    type V = Avx512;
    type Words = __m512i;
    type Sums = __m512i;
    const TILE_ROWS: usize = Avx512::TILE_ROWS;
    const OFFSET: bool = true;

    #[inline(always)]
    fn vector(self) -> Avx512 {
        self.0
    }

    #[inline(always)]
    unsafe fn load_at(self, from: *const u32) -> __m512i {
        // SAFETY: the caller vouches for 16 words; the instruction needs no alignment; AVX-512F is proven.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    unsafe fn spread_at(self, from: *const u32) -> __m512i {
        // SAFETY: the caller vouches for one word; AVX-512F is proven.
        unsafe { _mm512_set1_epi32((*from).cast_signed()) }
    }

    #[inline(always)]
    fn sums(self, from: &[i32]) -> __m512i {
        let from = &from[..16];
        // SAFETY: the slice has 16 values; the instruction needs no alignment; AVX-512F is proven.
        unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
    }

    #[inline(always)]
    fn dot(self, a: __m512i, b: __m512i, sums: __m512i) -> __m512i {
        proven!(_mm512_dpbusd_epi32(sums, a, b))
    }

    #[inline(always)]
    fn to_f32(self, sums: __m512i) -> <Avx512 as Vector>::F {
        proven!(_mm512_cvtepi32_ps(sums))
    }
}
