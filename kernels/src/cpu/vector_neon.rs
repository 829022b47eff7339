//! Vectors of 4 lanes: NEON.

use std::arch::aarch64::{
    float32x4_t, vaddq_f32, vaddq_s32, vaddvq_f32, vbslq_f32, vcgtq_f32, vcltq_f32, vcvtnq_s32_f32,
    vdivq_f32, vdupq_n_f32, vdupq_n_s32, vfmaq_f32, vld1q_f32, vmaxnmvq_f32, vmulq_f32,
    vreinterpretq_f32_s32, vrndnq_f32, vshlq_n_s32, vst1q_f32, vst1q_s32, vsubq_f32,
};
use std::arch::{asm, is_aarch64_feature_detected};

use super::vector::Vector;
use crate::dispatch::Kernel;

/// Proof that the processor has NEON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Neon(());

impl Neon {
    pub(crate) fn detect() -> Option<Self> {
        is_aarch64_feature_detected!("neon").then_some(Self(()))
    }

    pub(crate) fn enter<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "neon")]
        fn entry<K: Kernel>(proof: Neon, kernel: K) -> K::Output {
            kernel.run(proof)
        }
        // SAFETY: `detect` alone makes the proof, after it found the feature.
        unsafe { entry(self, kernel) }
    }
}

macro_rules! proven {
    ($instruction:expr) => {
        // SAFETY: `detect` alone makes the proof that `self` is, after it found NEON.
        unsafe { $instruction }
    };
}

impl Vector for Neon {
    type F = float32x4_t;
    const LANES: usize = 4;
    const TILE_ROWS: usize = 12;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        proven!(vdupq_n_f32(x))
    }

    #[inline(always)]
    unsafe fn load_at(self, from: *const f32) -> Self::F {
        // SAFETY: the caller vouches for 4 values; the instruction needs no more alignment than they do; NEON is
        // proven.
        unsafe { vld1q_f32(from) }
    }

    #[inline(always)]
    unsafe fn store_at(self, value: Self::F, to: *mut f32) {
        // SAFETY: the caller vouches for 4 values; the instruction needs no more alignment than they do; NEON is
        // proven.
        unsafe { vst1q_f32(to, value) }
    }

    #[inline(always)]
    fn store_bytes(self, value: Self::F, to: &mut [u8]) {
        let mut integers = [0; 4];
        // SAFETY: the array has 4 values; NEON is proven.
        unsafe {
            let nearest = vaddq_s32(vcvtnq_s32_f32(value), vdupq_n_s32(128));
            vst1q_s32(integers.as_mut_ptr(), nearest);
        }
        for (byte, integer) in to[..4].iter_mut().zip(integers) {
            *byte = integer as u8;
        }
    }

    /// Written as an instruction, because its intrinsic is not stable. An interpreter knows no instructions, and
    /// needs no hint.
    #[inline(always)]
    fn prefetch(self, from: *const f32) {
        if !cfg!(miri) {
            // SAFETY: a hint, which accesses nothing and faults at no address.
            unsafe {
                asm!("prfm pldl2keep, [{from}]", from = in(reg) from, options(nostack, readonly, preserves_flags));
            }
        }
    }

    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        proven!(vaddq_f32(a, b))
    }

    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        proven!(vsubq_f32(a, b))
    }

    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        proven!(vmulq_f32(a, b))
    }

    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        proven!(vdivq_f32(a, b))
    }

    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        proven!(vfmaq_f32(c, a, b))
    }

    /// Compared and chosen: the instruction for a minimum would make NaN of any NaN.
    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        proven!(vbslq_f32(vcltq_f32(a, b), a, b))
    }

    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        proven!(vbslq_f32(vcgtq_f32(a, b), a, b))
    }

    #[inline(always)]
    fn round(self, x: Self::F) -> Self::F {
        proven!(vrndnq_f32(x))
    }

    #[inline(always)]
    fn scale(self, x: Self::F, n: Self::F) -> Self::F {
        proven!({
            let exponent = vaddq_s32(vcvtnq_s32_f32(n), vdupq_n_s32(127));
            vmulq_f32(x, vreinterpretq_f32_s32(vshlq_n_s32::<23>(exponent)))
        })
    }

    #[inline(always)]
    fn sum(self, value: Self::F) -> f32 {
        proven!(vaddvq_f32(value))
    }

    #[inline(always)]
    fn top(self, value: Self::F) -> f32 {
        proven!(vmaxnmvq_f32(value))
    }
}
