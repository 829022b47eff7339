//! Bytes in registers of 8 words: AVX-VNNI, and AVX2 alone, which takes a detour to stay exact.

use std::arch::x86_64::{
    __m256i, _mm256_add_epi32, _mm256_cvtepi32_ps, _mm256_dpbusd_avx_epi32, _mm256_loadu_si256,
    _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_set1_epi16, _mm256_set1_epi32, _mm256_sign_epi8,
};

use super::int8::{Dot, DotKernel};
use super::vector::Vector;
use super::vector_avx2::Avx2;

/// Proof that the processor has AVX2, FMA and AVX-VNNI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AvxVnni(Avx2);

/// Bytes on AVX2 and FMA alone, by way of pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pairs(Avx2);

impl AvxVnni {
    pub(crate) fn detect() -> Option<Self> {
        Avx2::detect()
            .filter(|_| is_x86_feature_detected!("avxvnni"))
            .map(Self)
    }

    pub(crate) fn enter<K: DotKernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx2,fma,avxvnni")]
        fn entry<K: DotKernel>(proof: AvxVnni, kernel: K) -> K::Output {
            kernel.run(proof)
        }
        // SAFETY: `detect` alone makes the proof, after it found the features.
        unsafe { entry(self, kernel) }
    }
}

impl Pairs {
    pub(crate) fn detect() -> Option<Self> {
        Avx2::detect().map(Self)
    }

    pub(crate) fn enter<K: DotKernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx2,fma")]
        fn entry<K: DotKernel>(proof: Pairs, kernel: K) -> K::Output {
            kernel.run(proof)
        }
        // SAFETY: `Avx2::detect` alone makes the proof, after it found both features.
        unsafe { entry(self, kernel) }
    }
}

macro_rules! proven {
    ($instruction:expr) => {
        // SAFETY: `self` is a proof that `detect` alone makes, after it has found the named instructions.
        unsafe { $instruction }
    };
}

macro_rules! registers {
    (flip $flip:literal) => {
        type V = Avx2;
        type Words = __m256i;
        type Sums = __m256i;

        #[inline(always)]
        fn vector(self) -> Avx2 {
            self.0
        }

        #[inline(always)]
        unsafe fn load_at(self, from: *const u32) -> __m256i {
            // SAFETY: the caller vouches for 8 words; the instruction needs no alignment; AVX2 is proven.
            unsafe { _mm256_loadu_si256(from.cast()) }
        }

        #[inline(always)]
        unsafe fn spread_at(self, from: *const u32) -> __m256i {
            // SAFETY: the caller vouches for one word; AVX2 is proven.
            unsafe { _mm256_set1_epi32((*from ^ $flip).cast_signed()) }
        }

        #[inline(always)]
        fn sums(self, from: &[i32]) -> __m256i {
            let from = &from[..8];
            // SAFETY: the slice has 8 values; the instruction needs no alignment; AVX2 is proven.
            unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
        }

        #[inline(always)]
        fn to_f32(self, sums: __m256i) -> <Avx2 as Vector>::F {
            proven!(_mm256_cvtepi32_ps(sums))
        }
    };
}

impl Dot for AvxVnni {
    registers!(flip 0);
    const TILE_ROWS: usize = Avx2::TILE_ROWS;
    const OFFSET: bool = true;

    #[inline(always)]
    fn dot(self, a: __m256i, b: __m256i, sums: __m256i) -> __m256i {
        proven!(_mm256_dpbusd_avx_epi32(sums, a, b))
    }
}

impl Dot for Pairs {
    // Turning the highest bit of a byte over takes 128 off and makes it a signed one.
    registers!(flip 0x8080_8080);
    /// Two registers a row, two of the panel, and |a|, a, the signed b and a row of ones.
    const TILE_ROWS: usize = 4;
    const OFFSET: bool = false;

    /// `vpmaddubsw` sums two products in 16 bits and saturates: 255 · 127 · 2 is too much for it. Without
    /// the 128, and with the sign of `a` moved to `b`, nothing is lost: 127 · 127 · 2 = 32,258.
    #[inline(always)]
    fn dot(self, a: __m256i, b: __m256i, sums: __m256i) -> __m256i {
        proven!({
            let pairs = _mm256_maddubs_epi16(_mm256_sign_epi8(a, a), _mm256_sign_epi8(b, a));
            _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        })
    }
}
