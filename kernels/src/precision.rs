//! What the products of the linear layers are computed in: decided once, then carried by each packed matrix.

#[cfg(target_arch = "x86_64")]
use crate::cpu::bf16::Avx512Bf16;
use crate::cpu::int8::Bytes;
use crate::ops::KernelError;

/// The format of weights and of what they are multiplied with. A value exists only where the processor can
/// compute in it. Sums are f32 or exact integers; everything but the linear layers is f32 throughout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Precision(pub(crate) Kind);

/// A format and how this processor computes in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Singles,
    #[cfg(target_arch = "x86_64")]
    Bf16(Avx512Bf16),
    Bytes(Bytes),
}

impl Precision {
    /// f32: any processor.
    pub const F32: Self = Self(Kind::Singles);

    /// bfloat16 where the processor multiplies it; elsewhere the error names what it lacks.
    pub fn bf16() -> Result<Self, KernelError> {
        #[cfg(target_arch = "x86_64")]
        if let Some(proof) = Avx512Bf16::detect() {
            return Ok(Self(Kind::Bf16(proof)));
        }
        Err(KernelError::Instructions {
            dtype: "bf16",
            missing: "avx512_bf16",
        })
    }

    /// 8-bit integers, by the fastest instructions this processor has for them.
    pub fn int8() -> Self {
        Self::int8_supported()[0]
    }

    /// 8-bit integers by each way that this processor has, the fastest first. All give the same results.
    pub fn int8_supported() -> Vec<Self> {
        let ways = Bytes::supported().into_iter();
        ways.map(|way| Self(Kind::Bytes(way))).collect()
    }

    /// What it is, without how this processor does it.
    pub fn format(self) -> Format {
        match self.0 {
            Kind::Singles => Format::F32,
            #[cfg(target_arch = "x86_64")]
            Kind::Bf16(_) => Format::Bf16,
            Kind::Bytes(_) => Format::Int8,
        }
    }

    /// The format's name, and the instructions where it has several ways.
    pub fn name(self) -> String {
        match self.0 {
            Kind::Bytes(way) => format!("int8 by {}", way.name()),
            _ => self.format().name().to_owned(),
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
