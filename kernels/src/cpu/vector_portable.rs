//! Vectors without intrinsics: four lanes that the compiler maps to the target's instructions.

use super::vector::Vector;

/// Plain Rust; needs no proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Portable;

/// Adding and subtracting 1.5 · 2²³ rounds to an integer and leaves that integer in the low bits.
pub(crate) const ROUNDER: f32 = 12_582_912.0;

macro_rules! lanewise {
    ($($operand:ident),+ => $result:expr) => {{
        let mut lanes = [0.0; Self::LANES];
        for (lane, out) in lanes.iter_mut().enumerate() {
            $(let $operand = $operand[lane];)+
            *out = $result;
        }
        lanes
    }};
}

impl Vector for Portable {
    type F = [f32; 4];
    const LANES: usize = 4;
    const TILE_ROWS: usize = 4;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        [x; 4]
    }

    #[inline(always)]
    unsafe fn load_at(self, from: *const f32) -> Self::F {
        // SAFETY: the caller vouches for LANES values; an array of f32 needs no more alignment than f32.
        unsafe { from.cast::<[f32; 4]>().read() }
    }

    #[inline(always)]
    unsafe fn store_at(self, value: Self::F, to: *mut f32) {
        // SAFETY: the caller vouches for LANES values; an array of f32 needs no more alignment than f32.
        unsafe { to.cast::<[f32; 4]>().write(value) }
    }

    #[inline(always)]
    fn store_bytes(self, value: Self::F, to: &mut [u8]) {
        for (byte, value) in to[..Self::LANES].iter_mut().zip(self.round(value)) {
            *byte = (value as i32).wrapping_add(128) as u8;
        }
    }

    #[inline(always)]
    fn prefetch(self, _: *const f32) {}

    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        lanewise!(a, b => a + b)
    }

    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        lanewise!(a, b => a - b)
    }

    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        lanewise!(a, b => a * b)
    }

    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        lanewise!(a, b => a / b)
    }

    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        // Without such an instruction in the target, `mul_add` would be a call into libm.
        if cfg!(any(target_arch = "aarch64", target_feature = "fma")) {
            lanewise!(a, b, c => a.mul_add(b, c))
        } else {
            lanewise!(a, b, c => a * b + c)
        }
    }

    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        lanewise!(a, b => if a < b { a } else { b })
    }

    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        lanewise!(a, b => if a > b { a } else { b })
    }

    #[inline(always)]
    fn round(self, x: Self::F) -> Self::F {
        lanewise!(x => (x + ROUNDER) - ROUNDER)
    }

    #[inline(always)]
    fn scale(self, x: Self::F, n: Self::F) -> Self::F {
        lanewise!(x, n => x * f32::from_bits((n + ROUNDER).to_bits().wrapping_add(127) << 23))
    }

    #[inline(always)]
    fn sum(self, [a, b, c, d]: Self::F) -> f32 {
        (a + c) + (b + d)
    }

    #[inline(always)]
    fn top(self, [a, b, c, d]: Self::F) -> f32 {
        a.max(c).max(b.max(d))
    }
}
