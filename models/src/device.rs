//! Device and number format of a model: the caller's choice, made before a weight is read.

use std::fmt;

use penstock_kernels::cuda::Dtype;
use penstock_kernels::{Format, Precision, Threads};

use crate::ModelError;

/// The device on which a model computes.
#[derive(Clone, Debug)]
pub enum Device {
    /// This machine's processor.
    Cpu {
        /// Compute threads that models share. `None`: a team for this model alone, with a thread for each
        /// core.
        threads: Option<Threads>,
        /// Number format of the linear layers; everything else is f32.
        precision: Precision,
    },
    /// A GPU that [`crate::probe`] found usable.
    Cuda {
        /// Number of the GPU.
        ordinal: usize,
        /// Number format of weights and activations; sums are f32.
        dtype: Dtype,
        /// True where the launches of small batches are recorded and replayed by one call.
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
    /// Accuracy that a model must reach against its reference outputs.
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

/// Accuracy against the outputs of the original, which computed in f32.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fidelity {
    /// Every value is within the tolerance that the reference names.
    Exact,
    /// Weights or activations are rounded on the way.
    Rounded {
        /// Least mean cosine, over the texts, between outputs and the reference's.
        cosine_min: f32,
        /// Least share of texts whose largest logit is that of the reference.
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

/// The given compute threads, or a team with a thread for each core.
pub(crate) fn team(threads: Option<&Threads>) -> Result<Threads, ModelError> {
    if let Some(threads) = threads {
        return Ok(threads.clone());
    }
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Ok(Threads::new(cores)?)
}
