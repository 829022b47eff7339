//! Weights, packed once for the instructions that multiply them.

#[cfg(target_arch = "x86_64")]
use super::bf16::{self, Avx512Bf16};
use super::gemm::{PANEL, Panels};
use super::int8::{self, ByteMatrix, Bytes};
use super::memory::Lines;
#[cfg(target_arch = "x86_64")]
use super::{amx, amx_bf16::AmxBf16, amx_int8::AmxInt8};
use crate::ops::KernelError;
#[cfg(target_arch = "x86_64")]
use crate::precision::Bf16;
use crate::precision::Kind;

/// Weights as panels, with their bias.
pub struct Matrix {
    pub(crate) weights: Weights,
    /// Zeros where there is no bias, so that no reader has to check.
    bias: Lines,
    out: usize,
    inp: usize,
}

/// The panels, by the instructions that multiply them.
pub(crate) enum Weights {
    Vectors(Vectors),
    #[cfg(target_arch = "x86_64")]
    Tiles(Tiles),
}

/// Panels for vectors, and the proof that the processor can multiply them.
pub(crate) enum Vectors {
    Singles(Panels<f32>),
    #[cfg(target_arch = "x86_64")]
    Bf16(Avx512Bf16, Panels<u32>),
    Bytes(Bytes, ByteMatrix),
}

/// The same for tiles.
#[cfg(target_arch = "x86_64")]
pub(crate) enum Tiles {
    Bf16(AmxBf16, Panels<u32>),
    Bytes(AmxInt8, ByteMatrix),
}

impl Weights {
    fn new(form: Kind, weight: &[f32], out: usize, inp: usize) -> Result<Self, KernelError> {
        Ok(match form {
            Kind::Singles => Self::Vectors(Vectors::Singles(Panels::pack(weight, out, inp))),
            #[cfg(target_arch = "x86_64")]
            Kind::Bf16(Bf16::Vectors(proof)) => {
                let width = bf16::words(inp);
                let words = bf16::rounded(proof, weight, inp, width);
                Self::Vectors(Vectors::Bf16(proof, Panels::pack(&words, out, width)))
            }
            #[cfg(target_arch = "x86_64")]
            Kind::Bf16(Bf16::Tiles(proof)) => {
                let width = bf16::words(inp).next_multiple_of(amx::STEP);
                let words = bf16::rounded(proof.rounding(), weight, inp, width);
                Self::Tiles(Tiles::Bf16(proof, Panels::pack(&words, out, width)))
            }
            Kind::Bytes(bytes) => {
                let matrix = ByteMatrix::new(weight, out, inp, int8::words(inp))?;
                Self::Vectors(Vectors::Bytes(bytes, matrix))
            }
            #[cfg(target_arch = "x86_64")]
            Kind::TiledBytes(proof) => {
                let width = int8::words(inp).next_multiple_of(amx::STEP);
                Self::Tiles(Tiles::Bytes(proof, ByteMatrix::new(weight, out, inp, width)?))
            }
        })
    }
}

impl Vectors {
    /// Words of a row of inputs.
    pub(crate) fn words(&self) -> usize {
        match self {
            Self::Singles(panels) => panels.k(),
            #[cfg(target_arch = "x86_64")]
            Self::Bf16(_, panels) => panels.k(),
            Self::Bytes(_, matrix) => matrix.panels.k(),
        }
    }
}

impl Matrix {
    pub(crate) fn new(
        form: Kind,
        weight: &[f32],
        bias: Option<&[f32]>,
        out: usize,
        inp: usize,
    ) -> Result<Self, KernelError> {
        let mut padded = Lines::zeroed(out.next_multiple_of(PANEL));
        if let Some(bias) = bias {
            padded[..out].copy_from_slice(bias);
        }
        Ok(Self {
            weights: Weights::new(form, weight, out, inp)?,
            bias: padded,
            out,
            inp,
        })
    }

    /// Outputs.
    pub fn out(&self) -> usize {
        self.out
    }

    /// Inputs.
    pub fn inp(&self) -> usize {
        self.inp
    }

    /// One value for each output, and zeros up to a whole panel.
    pub(crate) fn bias(&self) -> &[f32] {
        &self.bias
    }
}
