//! Where a model computes and in which format: the caller's choice, made before a weight is read.

use std::fmt;

use penstock_kernels::cuda::Dtype;
use penstock_kernels::{Format, Precision, Threads};

use crate::ModelError;

/// Where a model computes.
#[derive(Clone, Debug)]
pub enum Device {
    /// This machine's processor.
    Cpu {
        /// Compute threads that models share; without them, a team for this model alone with a thread for
        /// each core.
        threads: Option<Threads>,
        /// What the linear layers compute in; the rest is f32.
        precision: Precision,
    },
    /// A GPU that [`crate::probe`] found usable.
    Cuda {
        /// Its number.
        ordinal: usize,
        /// What weights and activations are kept in; sums are f32.
        dtype: Dtype,
        /// Whether the launches of small batches are recorded and started by one call.
        graphs: bool,
    },
}

impl Default for Device {
    fn default() -> Device {
        Device::Cpu {
            threads: None,
            precision: Precision::F32,
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Cpu { .. } => f.write_str("cpu"),
            Device::Cuda { ordinal, .. } => write!(f, "cuda:{ordinal}"),
        }
    }
}

impl Device {
    /// How near a model must come to its reference outputs.
    pub(crate) fn fidelity(&self) -> Fidelity {
        match self {
            Device::Cpu { precision, .. } => match precision.format() {
                Format::F32 => Fidelity::Exact,
                Format::Bf16 => HALF,
                Format::Int8 => BYTES,
            },
            Device::Cuda { dtype, .. } => match dtype {
                Dtype::F32 => Fidelity::Exact,
                Dtype::F16 | Dtype::Bf16 => HALF,
            },
        }
    }
}

/// How near outputs must come to those of the original, which computed in f32.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fidelity {
    /// Every value within the tolerance that the reference names.
    Exact,
    /// Weights or activations are rounded on the way.
    Rounded {
        /// The least mean, over the texts, of the cosine between outputs and the reference's.
        cosine_min: f32,
        /// The least share of texts whose largest logit is the reference's.
        labels_min: f32,
    },
}

const HALF: Fidelity = Fidelity::Rounded {
    cosine_min: 0.999,
    labels_min: 0.995,
};

const BYTES: Fidelity = Fidelity::Rounded {
    cosine_min: 0.99,
    labels_min: 0.99,
};

/// The team of a CPU that was given none.
pub(crate) fn team(threads: Option<&Threads>) -> Result<Threads, ModelError> {
    if let Some(threads) = threads {
        return Ok(threads.clone());
    }
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Ok(Threads::new(cores)?)
}
