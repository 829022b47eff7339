//! Bytes on tiles: `tdpbusd` sums the products, and AVX-512 turns the sums into results as on every other path.

use std::arch::x86_64::{__m512i, _mm512_add_epi32, _mm512_loadu_si512};

use super::amx::{Amx, WordFormat};
use super::gemm::Panels;
use super::int8::{ByteMatrix, Dot, DotKernel, Quantise};
use super::int8_avx512::Avx512Vnni;
use super::tiled::{TileKernel, Tiled};
use super::vector::Vector;
use super::vector_avx512::Avx512;
use crate::dispatch::Kernel;

/// Proof that the processor has AMX and AVX512-VNNI, and that the system lets this process use tiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AmxInt8(Amx, Avx512Vnni);

impl AmxInt8 {
    pub(crate) fn detect() -> Option<Self> {
        let vnni = Avx512Vnni::detect()?;
        Amx::detect().map(|amx| Self(amx, vnni))
    }
}

/// Offsets and scales that finish the sums of 16 outputs.
#[derive(Clone, Copy)]
pub(crate) struct Columns {
    starts: __m512i,
    scales: <Avx512 as Vector>::F,
}

impl Tiled for AmxInt8 {
    type Weights = ByteMatrix;
    type Columns = Columns;
    const WORDS: WordFormat = WordFormat::Bytes;

    #[inline(always)]
    fn amx(self) -> Amx {
        self.0
    }

    #[inline(always)]
    fn vector(self) -> Avx512 {
        self.1.vector()
    }

    fn enter<K: TileKernel<Self>>(self, kernel: K) -> K::Output {
        struct Entered<K>(AmxInt8, K);
        impl<K: TileKernel<AmxInt8>> DotKernel for Entered<K> {
            type Output = K::Output;

            #[inline(always)]
            fn run<D: Dot>(self, _: D) -> K::Output {
                self.1.run(self.0)
            }
        }
        self.1.enter(Entered(self, kernel))
    }

    fn panels(weights: &ByteMatrix) -> &Panels<u32> {
        &weights.panels
    }

    #[inline(always)]
    fn pack(self, x: &[f32], words: &mut [u32], scales: &mut [f32]) {
        Quantise { x, words, scales }.run(self.vector());
    }

    #[inline(always)]
    fn columns(self, weights: &ByteMatrix, column: usize) -> Columns {
        let (starts, scales) = weights.columns(column);
        Columns {
            starts: self.1.sums(starts),
            scales: self.vector().load(scales),
        }
    }

    #[inline(always)]
    fn finish(self, columns: Columns, scale: f32, sums: &[u32; 16]) -> <Avx512 as Vector>::F {
        // SAFETY: the array has 16 words; the instruction needs no alignment; AVX-512F is proven.
        let sums = unsafe {
            let sums = _mm512_loadu_si512(sums.as_ptr().cast());
            _mm512_add_epi32(sums, columns.starts)
        };
        let v = self.vector();
        // The order of `Quantised::finish`, so that every path rounds alike.
        v.mul(v.mul(self.1.to_f32(sums), v.splat(scale)), columns.scales)
    }
}
