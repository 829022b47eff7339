//! Precision of the products of the linear layers: decided once, then carried by each packed matrix.

use crate::cpu::attention::Way;
use crate::cpu::int8::Bytes;
#[cfg(target_arch = "x86_64")]
use crate::cpu::{amx_bf16::AmxBf16, amx_int8::AmxInt8, bf16::Avx512Bf16};
use crate::dispatch::Path;
use crate::ops::KernelError;

/// The format of weights and the rows they are multiplied with. A value exists only where the processor can
/// compute in it. Sums are f32 or exact integers. Everything but the linear layers is f32 throughout; with tiles, the
/// products of attention are bfloat16 too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Precision(pub(crate) Kind);

/// A format and how this processor computes in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Singles,
    #[cfg(target_arch = "x86_64")]
    Bf16(Bf16),
    Bytes(Bytes),
    /// The same integers, on tiles.
    #[cfg(target_arch = "x86_64")]
    TiledBytes(AmxInt8),
}

/// A way to multiply bfloat16.
#[cfg(target_arch = "x86_64")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bf16 {
    Tiles(AmxBf16),
    Vectors(Avx512Bf16),
}

impl Precision {
    /// f32: any processor.
    pub const F32: Self = Self(Kind::Singles);

    /// bfloat16 by the fastest instructions this processor has for it; without any the error names the missing ones.
    pub fn bf16() -> Result<Self, KernelError> {
        let fastest = Self::bf16_supported().into_iter().next();
        fastest.ok_or(KernelError::Instructions {
            dtype: "bf16",
            missing: "avx512_bf16",
        })
    }

    /// bfloat16 by each way that this processor has, the fastest first. Sums are rounded differently by each.
    pub fn bf16_supported() -> Vec<Self> {
        #[cfg(target_arch = "x86_64")]
        {
            let tiles = AmxBf16::detect().map(Bf16::Tiles);
            let ways = tiles.into_iter().chain(Avx512Bf16::detect().map(Bf16::Vectors));
            ways.map(|way| Self(Kind::Bf16(way))).collect()
        }
        #[cfg(not(target_arch = "x86_64"))]
        Vec::new()
    }

    /// 8-bit integers, by the fastest instructions this processor has for them.
    pub fn int8() -> Self {
        Self::int8_supported()[0]
    }

    /// 8-bit integers by each way that this processor has, the fastest first. The linear layers give the same results on all.
    pub fn int8_supported() -> Vec<Self> {
        let mut ways = Vec::new();
        #[cfg(target_arch = "x86_64")]
        ways.extend(AmxInt8::detect().map(Kind::TiledBytes));
        ways.extend(Bytes::supported().into_iter().map(Kind::Bytes));
        ways.into_iter().map(Self).collect()
    }

    /// How attention computes: on the tiles where the linear layers do, otherwise in f32 on `path`.
    pub(crate) fn attention(self, path: Path) -> Way {
        #[cfg(target_arch = "x86_64")]
        let tiles = match self.0 {
            Kind::Bf16(Bf16::Tiles(tiles)) => Some(tiles),
            Kind::TiledBytes(_) => AmxBf16::detect(),
            _ => None,
        };
        #[cfg(target_arch = "x86_64")]
        if let Some(tiles) = tiles {
            return Way::Tiles(tiles);
        }
        Way::Vectors(path)
    }

    /// Number format, without the instructions that compute it.
    pub fn format(self) -> Format {
        match self.0 {
            Kind::Singles => Format::F32,
            #[cfg(target_arch = "x86_64")]
            Kind::Bf16(_) => Format::Bf16,
            Kind::Bytes(_) => Format::Int8,
            #[cfg(target_arch = "x86_64")]
            Kind::TiledBytes(_) => Format::Int8,
        }
    }

    /// The format's name, and the instructions where it has several ways.
    pub fn name(self) -> String {
        match self.0 {
            Kind::Singles => Format::F32.name().to_owned(),
            _ => format!("{} by {}", self.format().name(), self.instructions()),
        }
    }

    /// The instructions that multiply, as logs show them.
    pub fn instructions(self) -> &'static str {
        match self.0 {
            Kind::Singles => Path::best().name(),
            #[cfg(target_arch = "x86_64")]
            Kind::Bf16(Bf16::Tiles(_)) | Kind::TiledBytes(_) => "amx",
            #[cfg(target_arch = "x86_64")]
            Kind::Bf16(Bf16::Vectors(_)) => "avx512-bf16",
            Kind::Bytes(way) => way.name(),
        }
    }
}

/// A format of numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// 32 bits with a point.
    F32,
    /// The upper 16 of them.
    Bf16,
    /// 8-bit integers with a scale for each row.
    Int8,
}

impl Format {
    /// The name, as settings have it.
    pub fn name(self) -> &'static str {
        match self {
            Format::F32 => "f32",
            Format::Bf16 => "bf16",
            Format::Int8 => "int8",
        }
    }
}
