//! What the products of the linear layers are computed in: decided once, then carried by each packed matrix.

#[cfg(target_arch = "x86_64")]
use crate::cpu::bf16::Avx512Bf16;
use crate::cpu::int8::Bytes;
use crate::ops::KernelError;

/// The form of weights and of what they are multiplied with. A value exists only where the processor can
/// compute in it. Sums are f32 or exact integers; everything but the linear layers is f32 throughout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Precision(pub(crate) Form);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Singles,
    #[cfg(target_arch = "x86_64")]
    Bf16(Avx512Bf16),
    Bytes(Bytes),
}

impl Precision {
    /// f32: any processor.
    pub const F32: Self = Self(Form::Singles);

    /// bfloat16 where the processor multiplies it; elsewhere the error names what it lacks.
    pub fn bf16() -> Result<Self, KernelError> {
        #[cfg(target_arch = "x86_64")]
        if let Some(proof) = Avx512Bf16::detect() {
            return Ok(Self(Form::Bf16(proof)));
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
        ways.map(|way| Self(Form::Bytes(way))).collect()
    }

    /// The name, and the instructions where a form has several, as logs show it.
    pub fn name(self) -> String {
        match self.0 {
            Form::Singles => "f32".to_owned(),
            #[cfg(target_arch = "x86_64")]
            Form::Bf16(_) => "bf16".to_owned(),
            Form::Bytes(way) => format!("int8 by {}", way.name()),
        }
    }
}
