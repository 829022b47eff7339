//! Vectors of 8 lanes: AVX2 with FMA.

use std::arch::x86_64::{
    __m256, _MM_HINT_T1, _mm_add_ps, _mm_add_ss, _mm_cvtss_f32, _mm_max_ps, _mm_max_ss, _mm_movehdup_ps,
    _mm_movehl_ps, _mm_packs_epi32, _mm_packus_epi16, _mm_prefetch, _mm_storel_epi64, _mm256_add_epi32,
    _mm256_add_ps, _mm256_castps_si256, _mm256_castps256_ps128, _mm256_castsi256_ps, _mm256_castsi256_si128,
    _mm256_cvtps_epi32, _mm256_div_ps, _mm256_extractf128_ps, _mm256_extracti128_si256, _mm256_fmadd_ps,
    _mm256_loadu_ps, _mm256_max_ps, _mm256_min_ps, _mm256_mul_ps, _mm256_round_ps, _mm256_set1_epi32,
    _mm256_set1_ps, _mm256_slli_epi32, _mm256_storeu_ps, _mm256_sub_ps,
};

use super::vector::Vector;
use crate::dispatch::Kernel;

/// Proof that the processor has AVX2 and FMA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Avx2(());

impl Avx2 {
    pub(crate) fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")).then_some(Self(()))
    }

    pub(crate) fn enter<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx2,fma")]
        fn entry<K: Kernel>(proof: Avx2, kernel: K) -> K::Output {
            kernel.run(proof)
        }
        // SAFETY: `detect` alone makes the proof, after it found both features.
        unsafe { entry(self, kernel) }
    }
}

macro_rules! proven {
    ($instruction:expr) => {
        // SAFETY: `detect` alone makes the proof that `self` is, after it found AVX2 and FMA.
        unsafe { $instruction }
    };
}

impl Vector for Avx2 {
    type F = __m256;
    const LANES: usize = 8;
    const TILE_ROWS: usize = 6;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        proven!(_mm256_set1_ps(x))
    }

    #[inline(always)]
    unsafe fn load_at(self, from: *const f32) -> Self::F {
        // SAFETY: the caller vouches for 8 values; the instruction needs no alignment; AVX is proven.
        unsafe { _mm256_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn store_at(self, value: Self::F, to: *mut f32) {
        // SAFETY: the caller vouches for 8 values; the instruction needs no alignment; AVX is proven.
        unsafe { _mm256_storeu_ps(to, value) }
    }

    #[inline(always)]
    fn store_bytes(self, value: Self::F, to: &mut [u8]) {
        let to = &mut to[..8];
        // SAFETY: the slice has 8 bytes; the instruction needs no alignment; AVX2 is proven.
        unsafe {
            let integers = _mm256_add_epi32(_mm256_cvtps_epi32(value), _mm256_set1_epi32(128));
            let low = _mm256_castsi256_si128(integers);
            let shorts = _mm_packs_epi32(low, _mm256_extracti128_si256::<1>(integers));
            _mm_storel_epi64(to.as_mut_ptr().cast(), _mm_packus_epi16(shorts, shorts));
        }
    }

    #[inline(always)]
    fn prefetch(self, from: *const f32) {
        proven!(_mm_prefetch::<_MM_HINT_T1>(from.cast()));
    }

    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        proven!(_mm256_add_ps(a, b))
    }

    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        proven!(_mm256_sub_ps(a, b))
    }

    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        proven!(_mm256_mul_ps(a, b))
    }

    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        proven!(_mm256_div_ps(a, b))
    }

    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        proven!(_mm256_fmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        proven!(_mm256_min_ps(a, b))
    }

    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        proven!(_mm256_max_ps(a, b))
    }

    #[inline(always)]
    fn round(self, x: Self::F) -> Self::F {
        proven!(_mm256_round_ps::<8>(x))
    }

    #[inline(always)]
    fn scale(self, x: Self::F, n: Self::F) -> Self::F {
        // Adding 1.5 · 2²³ leaves the integer in the low bits, from where it moves into the exponent.
        proven!({
            let bits = _mm256_castps_si256(_mm256_add_ps(n, _mm256_set1_ps(12_582_912.0)));
            let exponent = _mm256_slli_epi32::<23>(_mm256_add_epi32(bits, _mm256_set1_epi32(127)));
            _mm256_mul_ps(x, _mm256_castsi256_ps(exponent))
        })
    }

    #[inline(always)]
    fn sum(self, value: Self::F) -> f32 {
        proven!({
            let four = _mm_add_ps(_mm256_castps256_ps128(value), _mm256_extractf128_ps::<1>(value));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        })
    }

    #[inline(always)]
    fn top(self, value: Self::F) -> f32 {
        proven!({
            let four = _mm_max_ps(_mm256_castps256_ps128(value), _mm256_extractf128_ps::<1>(value));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
        })
    }
}
