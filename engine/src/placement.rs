//! Stage 0, after the settings: the device of the models. It is decided once, before any port opens, from the
//! settings and this machine; the reason is logged.

pub mod choice;

use std::fmt;

use penstock_models::{Device, Dtype, KernelError, Precision, Threads, Unavailable};

use crate::placement::choice::{DeviceChoice, DtypeChoice};

/// Device of the models, and the reason for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Placement {
    /// The device and its number format.
    pub compute: Compute,
    /// Reason of the choice, for the log.
    pub reason: String,
    /// Device for a model that does not fit the GPU: the CPU, if it has the format and no GPU was named.
    pub fallback: Option<Compute>,
}

/// Devices of every model.
pub struct Devices {
    /// Devices that each run the model.
    pub each: Vec<Device>,
    /// Device for a model that those cannot hold.
    pub fallback: Option<Device>,
}

/// Default tokens of a batch. On a CPU a larger batch computes no more tokens a second and delays all its
/// texts. A GPU needs this many to be busy (docs/performance.md).
pub fn tokens_max(device: &Device) -> usize {
    match device {
        Device::Cpu { .. } => 1024,
        Device::Cuda { .. } => 8192,
    }
}

/// A device and its number format.
#[derive(Clone, Debug, PartialEq)]
pub enum Compute {
    /// The CPU.
    Cpu {
        /// Number format of the linear layers.
        precision: Precision,
    },
    /// GPUs, each of which runs every model.
    Cuda {
        /// Their indices.
        gpus: Vec<usize>,
        /// Their number format.
        dtype: Dtype,
    },
}

/// Reason why the requested device or format is not possible.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// A GPU was named and cannot be used.
    #[error("device {device} cannot be used: {reason}")]
    Unavailable {
        /// The requested device.
        device: DeviceChoice,
        /// Reason of the GPU.
        reason: Unavailable,
    },
    /// A format that only a GPU has, without a usable GPU.
    #[error("{refused}; a gpu cannot be used: {reason}")]
    NoGpu {
        /// Error of the CPU.
        refused: Box<DeviceError>,
        /// Reason of the GPU.
        reason: Unavailable,
    },
    /// A format that the device does not support.
    #[error("dtype {dtype} is not computed on {device}, which has {known}; auto takes the best of them")]
    Dtype {
        /// The format.
        dtype: DtypeChoice,
        /// The device.
        device: &'static str,
        /// The formats that it supports.
        known: &'static str,
    },
    /// The CPU lacks the instructions for a format.
    #[error(transparent)]
    Instructions(#[from] KernelError),
}

/// Number format of the CPU for `dtype`.
pub fn on_cpu(dtype: DtypeChoice) -> Result<Compute, DeviceError> {
    let precision = match dtype {
        DtypeChoice::Auto | DtypeChoice::F32 => Precision::F32,
        DtypeChoice::Bf16 => Precision::bf16()?,
        DtypeChoice::Int8 => Precision::int8(),
        DtypeChoice::F16 => {
            return Err(DeviceError::Dtype {
                dtype,
                device: "the cpu",
                known: "f32, bf16 and int8",
            });
        }
    };
    Ok(Compute::Cpu { precision })
}

/// Number format of a GPU for `dtype`. `auto` is f16: as fast as bf16, with three more bits of precision for
/// activations, which a layer norm keeps small.
pub fn on_cuda(dtype: DtypeChoice) -> Result<Dtype, DeviceError> {
    match dtype {
        DtypeChoice::Auto | DtypeChoice::F16 => Ok(Dtype::F16),
        DtypeChoice::Bf16 => Ok(Dtype::Bf16),
        DtypeChoice::F32 => Ok(Dtype::F32),
        DtypeChoice::Int8 => Err(DeviceError::Dtype {
            dtype,
            device: "a gpu",
            known: "f32, f16 and bf16",
        }),
    }
}

/// Chooses the device. `probe` names the GPUs with these numbers, or returns why they cannot be used; it is
/// called only where the answer matters.
pub fn place(
    device: &DeviceChoice,
    dtype: DtypeChoice,
    probe: impl FnOnce(&[usize]) -> Result<Vec<String>, Unavailable>,
) -> Result<Placement, DeviceError> {
    let asked_for = |compute, reason: String| Placement {
        compute,
        reason,
        fallback: None,
    };
    match device {
        DeviceChoice::Cpu => Ok(asked_for(on_cpu(dtype)?, "asked for".to_owned())),
        DeviceChoice::Cuda(gpus) => {
            let on = on_cuda(dtype)?;
            let names = probe(gpus).map_err(|reason| DeviceError::Unavailable {
                device: device.clone(),
                reason,
            })?;
            let compute = Compute::Cuda {
                gpus: gpus.clone(),
                dtype: on,
            };
            Ok(asked_for(compute, format!("asked for: {}", names.join(", "))))
        }
        DeviceChoice::Auto => choose(dtype, probe),
    }
}

/// The first GPU, if it is usable and has the format; otherwise the CPU.
fn choose(
    dtype: DtypeChoice,
    probe: impl FnOnce(&[usize]) -> Result<Vec<String>, Unavailable>,
) -> Result<Placement, DeviceError> {
    let chosen = |compute, reason: String| Placement {
        compute,
        reason,
        fallback: None,
    };
    let on = match on_cuda(dtype) {
        Ok(on) => on,
        Err(refused) => return Ok(chosen(on_cpu(dtype)?, refused.to_string())),
    };
    match probe(&[0]) {
        Ok(names) => {
            let compute = Compute::Cuda {
                gpus: vec![0],
                dtype: on,
            };
            Ok(Placement {
                fallback: on_cpu(dtype).ok(),
                ..chosen(compute, format!("found {}", names.join(", ")))
            })
        }
        Err(reason) => match on_cpu(dtype) {
            Ok(compute) => Ok(chosen(compute, format!("no gpu can be used: {reason}"))),
            Err(refused) => Err(DeviceError::NoGpu {
                refused: Box::new(refused),
                reason,
            }),
        },
    }
}

impl Placement {
    /// Opens the devices. On the CPU models share `threads`; on a GPU `graphs` enables graphs for small
    /// batches.
    pub fn devices(&self, threads: &Threads, graphs: bool) -> Devices {
        let fallback = self.fallback.as_ref();
        Devices {
            each: self.compute.devices(threads, graphs),
            fallback: fallback.and_then(|compute| compute.devices(threads, graphs).pop()),
        }
    }
}

impl Compute {
    fn devices(&self, threads: &Threads, graphs: bool) -> Vec<Device> {
        match self {
            Compute::Cpu { precision } => vec![Device::Cpu {
                threads: Some(threads.clone()),
                precision: *precision,
            }],
            Compute::Cuda { gpus, dtype } => gpus
                .iter()
                .map(|&ordinal| Device::Cuda {
                    ordinal,
                    dtype: *dtype,
                    graphs,
                })
                .collect(),
        }
    }

    /// The format's name, for the log.
    pub fn dtype(&self) -> &'static str {
        match self {
            Compute::Cpu { precision } => precision.format().name(),
            Compute::Cuda { dtype, .. } => dtype.name(),
        }
    }

    /// Instruction set for the log: the CPU's, or `cuda`.
    pub fn instructions(&self) -> &'static str {
        match self {
            Compute::Cpu { precision } => precision.instructions(),
            Compute::Cuda { .. } => "cuda",
        }
    }
}

impl fmt::Display for Compute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Compute::Cpu { .. } => DeviceChoice::Cpu.fmt(f),
            Compute::Cuda { gpus, .. } => DeviceChoice::Cuda(gpus.clone()).fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Probe = fn(&[usize]) -> Result<Vec<String>, Unavailable>;

    const NONE: Probe = |_| Err(Unavailable::NoDriver);
    const FOUND: Probe = |gpus| Ok(gpus.iter().map(|gpu| format!("GPU {gpu}")).collect());
    const UNASKED: Probe = |_| panic!("a probe nobody needs");

    /// Checks that `DEVICE DTYPE` gives `expected`: the device, the format and the reason, or the error.
    fn check(asked: &str, probe: Probe, expected: &str) {
        let (device, dtype) = asked.split_once(' ').unwrap();
        let placed = place(&device.parse().unwrap(), dtype.parse().unwrap(), probe);
        let found = match placed {
            Ok(Placement { compute, reason, .. }) => format!("{compute} {} ({reason})", compute.dtype()),
            Err(error) => error.to_string(),
        };
        assert_eq!(found, expected, "{asked}");
    }

    #[test]
    fn auto_takes_the_first_gpu_and_says_why_where_it_cannot() {
        check("auto auto", FOUND, "cuda:0 f16 (found GPU 0)");
        check("auto bf16", FOUND, "cuda:0 bf16 (found GPU 0)");
        check("auto f32", FOUND, "cuda:0 f32 (found GPU 0)");
        let why = Unavailable::NoDriver;
        check("auto auto", NONE, &format!("cpu f32 (no gpu can be used: {why})"));
    }

    #[test]
    fn the_cpu_is_a_fallback_unless_a_gpu_was_named() {
        let fallback = |device: &str, dtype: &str| {
            let placed = place(&device.parse().unwrap(), dtype.parse().unwrap(), FOUND).unwrap();
            placed
                .fallback
                .map(|compute| format!("{compute} {}", compute.dtype()))
        };
        assert_eq!(fallback("auto", "auto").as_deref(), Some("cpu f32"));
        assert_eq!(fallback("auto", "f32").as_deref(), Some("cpu f32"));
        // The CPU does not support f16.
        assert_eq!(fallback("auto", "f16"), None);
        assert_eq!(fallback("cuda", "auto"), None);
        assert_eq!(fallback("cpu", "auto"), None);
    }

    #[test]
    fn int8_is_the_cpus_even_where_there_is_a_gpu() {
        let why =
            "dtype int8 is not computed on a gpu, which has f32, f16 and bf16; auto takes the best of them";
        check("auto int8", UNASKED, &format!("cpu int8 ({why})"));
    }

    #[test]
    fn a_device_by_name_is_that_device_or_an_error() {
        check("cpu auto", UNASKED, "cpu f32 (asked for)");
        check("cpu int8", UNASKED, "cpu int8 (asked for)");
        let bf16 = Precision::bf16().map_or_else(|e| e.to_string(), |_| "cpu bf16 (asked for)".to_owned());
        check("cpu bf16", UNASKED, &bf16);
        check("cuda:1,0 auto", FOUND, "cuda:1,0 f16 (asked for: GPU 1, GPU 0)");
        let why = Unavailable::NoDriver;
        check("cuda auto", NONE, &format!("device cuda:0 cannot be used: {why}"));
    }

    #[test]
    fn a_format_without_a_device_is_an_error() {
        let cpu =
            "dtype f16 is not computed on the cpu, which has f32, bf16 and int8; auto takes the best of them";
        check("cpu f16", UNASKED, cpu);
        let why = Unavailable::NoDriver;
        check("auto f16", NONE, &format!("{cpu}; a gpu cannot be used: {why}"));
        check(
            "cuda int8",
            UNASKED,
            "dtype int8 is not computed on a gpu, which has f32, f16 and bf16; auto takes the best of them",
        );
    }

    #[test]
    fn a_list_of_gpus_names_each_once() {
        let parsed = |s: &str| s.parse::<DeviceChoice>();
        assert_eq!(parsed("cuda"), Ok(DeviceChoice::Cuda(vec![0])));
        assert_eq!(parsed("cuda:2,1"), Ok(DeviceChoice::Cuda(vec![2, 1])));
        assert_eq!(
            parsed("cuda:1,1").unwrap_err(),
            "device `cuda:1,1` names cuda:1 twice"
        );
        for wrong in ["gpu", "cuda:", "cuda:0,", "cuda:x", "cuda:-1"] {
            assert!(
                parsed(wrong).unwrap_err().starts_with("unknown device"),
                "{wrong}"
            );
        }
    }
}
