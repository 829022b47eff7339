//! Pairs of bfloat16 on tiles: `tdpbf16ps` sums their products in f32.

use std::arch::x86_64::_mm512_loadu_ps;

use super::amx::{Amx, WordFormat};
use super::bf16::{Avx512Bf16, Bf16Kernel, Round};
use super::gemm::{Panels, Product};
use super::tiled::{TileKernel, Tiled};
use super::vector::Vector;
use super::vector_avx512::Avx512;

/// Proof that the processor has AMX and AVX512-BF16, and that the system lets this process use tiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AmxBf16(Amx, Avx512Bf16);

impl AmxBf16 {
    pub(crate) fn detect() -> Option<Self> {
        let bf16 = Avx512Bf16::detect()?;
        Amx::detect().map(|amx| Self(amx, bf16))
    }

    /// Instructions that round to bfloat16.
    pub(crate) fn rounding(self) -> Avx512Bf16 {
        self.1
    }
}

impl Tiled for AmxBf16 {
    type Weights = Panels<u32>;
    type Columns = ();
    const WORDS: WordFormat = WordFormat::Halves;

    #[inline(always)]
    fn amx(self) -> Amx {
        self.0
    }

    #[inline(always)]
    fn vector(self) -> Avx512 {
        self.1.vector()
    }

    fn enter<K: TileKernel<Self>>(self, kernel: K) -> K::Output {
        struct Entered<K>(AmxBf16, K);
        impl<K: TileKernel<AmxBf16>> Bf16Kernel for Entered<K> {
            type Output = K::Output;

            #[inline(always)]
            fn run(self, _: Avx512Bf16) -> K::Output {
                self.1.run(self.0)
            }
        }
        self.1.enter(Entered(self, kernel))
    }

    fn panels(weights: &Panels<u32>) -> &Panels<u32> {
        weights
    }

    #[inline(always)]
    fn pack(self, x: &[f32], words: &mut [u32], scales: &mut [f32]) {
        let rows = scales.len();
        let (inp, width) = (x.len() / rows, words.len() / rows);
        Round { x, words, inp, width }.run(self.1);
    }

    #[inline(always)]
    fn columns(self, _: &Panels<u32>, _: usize) {}

    #[inline(always)]
    fn finish(self, (): (), _: f32, sums: &[u32; 16]) -> <Avx512 as Vector>::F {
        // SAFETY: the array has 16 values, any bits are one; the instruction needs no alignment; AVX-512F is proven.
        unsafe { _mm512_loadu_ps(sums.as_ptr().cast()) }
    }
}
