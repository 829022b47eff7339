//! Bytes in registers of 4 words: the dot product of ARMv8.2, and NEON alone, which goes by way of pairs.

use std::arch::aarch64::{
    int8x16_t, int32x4_t, vcvtq_f32_s32, vdupq_n_u32, vget_low_s8, vld1q_s32, vld1q_u32, vmull_high_s8,
    vmull_s8, vpadalq_s16, vpaddq_s16, vreinterpretq_s8_u32,
};
use std::arch::{asm, is_aarch64_feature_detected};

use super::int8::{Dot, DotKernel};
use super::vector::Vector;
use super::vector_neon::Neon;

/// Proof that the processor has NEON and its dot product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NeonDot(Neon);

/// Bytes on NEON alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NeonPairs(Neon);

impl NeonDot {
    pub(crate) fn detect() -> Option<Self> {
        Neon::detect()
            .filter(|_| is_aarch64_feature_detected!("dotprod"))
            .map(Self)
    }

    pub(crate) fn enter<K: DotKernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "neon,dotprod")]
        fn entry<K: DotKernel>(proof: NeonDot, kernel: K) -> K::Output {
            kernel.run(proof)
        }
        // SAFETY: `detect` alone makes the proof, after it found both features.
        unsafe { entry(self, kernel) }
    }
}

impl NeonPairs {
    pub(crate) fn detect() -> Option<Self> {
        Neon::detect().map(Self)
    }

    pub(crate) fn enter<K: DotKernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "neon")]
        fn entry<K: DotKernel>(proof: NeonPairs, kernel: K) -> K::Output {
            kernel.run(proof)
        }
        // SAFETY: `Neon::detect` alone makes the proof, after it found the feature.
        unsafe { entry(self, kernel) }
    }
}

macro_rules! registers {
    () => {
        type V = Neon;
        type Words = int8x16_t;
        type Sums = int32x4_t;
        /// Both multiply signed bytes.
        const OFFSET: bool = false;

        #[inline(always)]
        fn vector(self) -> Neon {
            self.0
        }

        #[inline(always)]
        unsafe fn load_at(self, from: *const u32) -> int8x16_t {
            // SAFETY: the caller vouches for 4 words; the instruction needs no more alignment than they do; NEON is
            // proven.
            unsafe { vreinterpretq_s8_u32(vld1q_u32(from)) }
        }

        /// Turning the highest bit of a byte over takes 128 off and makes it a signed one.
        #[inline(always)]
        unsafe fn spread_at(self, from: *const u32) -> int8x16_t {
            // SAFETY: the caller vouches for one word; NEON is proven.
            unsafe { vreinterpretq_s8_u32(vdupq_n_u32(*from ^ 0x8080_8080)) }
        }

        #[inline(always)]
        fn sums(self, from: &[i32]) -> int32x4_t {
            let from = &from[..4];
            // SAFETY: the slice has 4 values; NEON is proven.
            unsafe { vld1q_s32(from.as_ptr()) }
        }

        #[inline(always)]
        fn to_f32(self, sums: int32x4_t) -> <Neon as Vector>::F {
            // SAFETY: `Neon::detect` alone makes the proof that `self.0` is, after it found NEON.
            unsafe { vcvtq_f32_s32(sums) }
        }
    };
}

impl Dot for NeonDot {
    registers!();
    const TILE_ROWS: usize = Neon::TILE_ROWS;

    /// Written as an instruction, because its intrinsic is not stable.
    #[inline(always)]
    fn dot(self, a: int8x16_t, b: int8x16_t, mut sums: int32x4_t) -> int32x4_t {
        // SAFETY: registers alone; `detect` alone makes the proof that `self` is, after it found the dot product.
        unsafe {
            asm!(
                ".arch_extension dotprod",
                "sdot {sums:v}.4s, {a:v}.16b, {b:v}.16b",
                sums = inout(vreg) sums,
                a = in(vreg) a,
                b = in(vreg) b,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        sums
    }
}

impl Dot for NeonPairs {
    registers!();
    /// Two registers a row, two of the panel, `a`, and the products that are not summed yet.
    const TILE_ROWS: usize = 8;

    /// Pairs of products fit 16 bits: 127 · 127 · 2 = 32,258.
    #[inline(always)]
    fn dot(self, a: int8x16_t, b: int8x16_t, sums: int32x4_t) -> int32x4_t {
        // SAFETY: `Neon::detect` alone makes the proof that `self.0` is, after it found NEON.
        unsafe {
            let low = vmull_s8(vget_low_s8(a), vget_low_s8(b));
            vpadalq_s16(sums, vpaddq_s16(low, vmull_high_s8(a, b)))
        }
    }
}
