//! Products in bfloat16: AVX512-BF16, which multiplies two pairs in each lane and sums them in f32.

use std::arch::x86_64::{
    __m256bh, __m512, __m512bh, _mm512_cvtepu16_epi32, _mm512_cvtne2ps_pbh, _mm512_cvtneps_pbh,
    _mm512_dpbf16_ps, _mm512_loadu_si512, _mm512_or_si512, _mm512_set1_epi32, _mm512_set1_ps,
    _mm512_slli_epi32, _mm512_storeu_si512,
};

use super::gemm::Product;
use super::memory::Lines;
use super::vector::Vector;
use super::vector_avx512::Avx512;

/// Values in a word.
const WORD: usize = 2;

/// Proof that the processor has AVX-512F and AVX512-BF16.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Avx512Bf16(Avx512);

/// Code that is compiled for the instructions.
pub(crate) trait Bf16Kernel {
    type Output;
    fn run(self, proof: Avx512Bf16) -> Self::Output;
}

impl Avx512Bf16 {
    pub(crate) fn detect() -> Option<Self> {
        Avx512::detect()
            .filter(|_| is_x86_feature_detected!("avx512bf16"))
            .map(Self)
    }

    pub(crate) fn enter<K: Bf16Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx512f,avx512bf16")]
        fn entry<K: Bf16Kernel>(proof: Avx512Bf16, kernel: K) -> K::Output {
            kernel.run(proof)
        }
        // SAFETY: `detect` alone makes the proof, after it found both features.
        unsafe { entry(self, kernel) }
    }
}

macro_rules! proven {
    ($instruction:expr) => {
        // SAFETY: `detect` alone makes the proof that `self` is, after it found AVX-512F and AVX512-BF16.
        unsafe { $instruction }
    };
}

impl Product for Avx512Bf16 {
    type V = Avx512;
    type Word = u32;
    type Words = __m512bh;
    type Sums = __m512;
    const TILE_ROWS: usize = Avx512::TILE_ROWS;

    #[inline(always)]
    fn vector(self) -> Avx512 {
        self.0
    }

    #[inline(always)]
    unsafe fn load_at(self, from: *const u32) -> __m512bh {
        // SAFETY: the caller vouches for 16 words; the instruction needs no alignment; AVX-512F is proven;
        // both types are 512 bits of which any is a value.
        unsafe { std::mem::transmute(_mm512_loadu_si512(from.cast())) }
    }

    #[inline(always)]
    unsafe fn spread_at(self, from: *const u32) -> __m512bh {
        // SAFETY: the caller vouches for one word; the rest as in `load_at`.
        unsafe { std::mem::transmute(_mm512_set1_epi32((*from).cast_signed())) }
    }

    #[inline(always)]
    fn start(self, _: usize) -> __m512 {
        proven!(_mm512_set1_ps(0.0))
    }

    #[inline(always)]
    fn step(self, a: __m512bh, b: __m512bh, sums: __m512) -> __m512 {
        proven!(_mm512_dpbf16_ps(sums, a, b))
    }

    #[inline(always)]
    fn finish(self, sums: __m512, _: usize, _: usize) -> __m512 {
        sums
    }
}

/// Words of a row of `inp` values.
pub(crate) fn words(inp: usize) -> usize {
    inp.div_ceil(WORD)
}

/// Rounds rows of `inp` values to the nearest bfloat16, ties to even, two to a word; rows of `width` words end in zeros.
pub(crate) struct Round<'a> {
    pub x: &'a [f32],
    pub words: &'a mut [u32],
    pub inp: usize,
    pub width: usize,
}

impl Bf16Kernel for Round<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self, proof: Avx512Bf16) {
        let rows = self.words.chunks_exact_mut(self.width);
        for (row, words) in self.x.chunks_exact(self.inp).zip(rows) {
            proof.round_row(row, words);
        }
    }
}

/// Values that are rounded at once.
const STEP: usize = 32;

impl Avx512Bf16 {
    /// Rounds a row; words beyond it are zeros.
    #[inline(always)]
    pub(crate) fn round_row(self, row: &[f32], words: &mut [u32]) {
        let whole = row.len() / STEP * STEP;
        for (values, words) in row.chunks_exact(STEP).zip(words.chunks_exact_mut(STEP / WORD)) {
            self.round(values, words);
        }
        let rest = &row[whole..];
        if !rest.is_empty() {
            let (mut values, mut rounded) = ([0.0; STEP], [0; STEP / WORD]);
            values[..rest.len()].copy_from_slice(rest);
            self.round(&values, &mut rounded);
            let rest = rest.len().div_ceil(WORD);
            words[whole / WORD..][..rest].copy_from_slice(&rounded[..rest]);
        }
        words[self::words(row.len())..].fill(0);
    }

    /// Rounds two rows of at most 32 values, one value of each to a word: `even` below, `odd` above. Words beyond them
    /// are zeros.
    #[inline(always)]
    pub(crate) fn round_pairs(self, even: &[f32], odd: &[f32], words: &mut [u32]) {
        let (mut padded, mut words) = ([[0.0; STEP]; 2], &mut words[..STEP]);
        let rows = if even.len() == STEP && odd.len() == STEP {
            [even, odd]
        } else {
            padded[0][..even.len()].copy_from_slice(even);
            padded[1][..odd.len()].copy_from_slice(odd);
            [padded[0].as_slice(), padded[1].as_slice()]
        };
        for half in 0..2 {
            let (lower, upper) = words.split_at_mut(STEP / WORD);
            let [even, odd] = rows.map(|row| self.0.load(&row[half * STEP / WORD..]));
            self.interleave(even, odd, lower);
            words = upper;
        }
    }

    /// One value of each register to a word.
    #[inline(always)]
    #[allow(
        clippy::unused_self,
        reason = "it is the proof that the instructions are there"
    )]
    fn interleave(self, even: __m512, odd: __m512, words: &mut [u32]) {
        let words = &mut words[..16];
        // SAFETY: the slice has 16 words; the instruction needs no alignment; the features are proven; both types are
        // 256 bits of which any is a value.
        unsafe {
            let wide = |x| {
                _mm512_cvtepu16_epi32(std::mem::transmute::<__m256bh, std::arch::x86_64::__m256i>(
                    _mm512_cvtneps_pbh(x),
                ))
            };
            let pairs = _mm512_or_si512(wide(even), _mm512_slli_epi32::<16>(wide(odd)));
            _mm512_storeu_si512(words.as_mut_ptr().cast(), pairs);
        }
    }

    /// Rounds 32 values in two registers to the first 16 words.
    #[inline(always)]
    #[allow(
        clippy::unused_self,
        reason = "it is the proof that the instructions are there"
    )]
    pub(crate) fn round_registers(self, low: __m512, high: __m512, words: &mut [u32]) {
        let words = &mut words[..STEP / WORD];
        // SAFETY: the slice has 16 words; the instructions need no alignment; the features are proven; both types are
        // 512 bits of which any is a value.
        unsafe {
            let rounded =
                std::mem::transmute::<__m512bh, std::arch::x86_64::__m512i>(_mm512_cvtne2ps_pbh(high, low));
            _mm512_storeu_si512(words.as_mut_ptr().cast(), rounded);
        }
    }

    /// The first 32 values to the first 16 words.
    #[inline(always)]
    fn round(self, values: &[f32], words: &mut [u32]) {
        self.round_registers(self.0.load(values), self.0.load(&values[Avx512::LANES..]), words);
    }
}

/// `weight`, row-major `[out, inp]`, in rows of `width` words.
pub(crate) fn rounded(proof: Avx512Bf16, weight: &[f32], inp: usize, width: usize) -> Lines<u32> {
    let mut words = Lines::zeroed(weight.len() / inp * width);
    proof.enter(Round {
        x: weight,
        words: &mut words,
        inp,
        width,
    });
    words
}
