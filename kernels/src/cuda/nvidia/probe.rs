//! Whether this machine has a GPU that can be used, and if not, why: asked before anything else is called,
//! because a library that is missing would otherwise end the process.

use cudarc::cublaslt::sys as cublaslt;
use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys;

/// Why no GPU is used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// No driver at all.
    #[error("libcuda.so.1 cannot be loaded: no NVIDIA driver is installed")]
    NoDriver,
    /// The library of matrix products is missing.
    #[error(
        "libcublasLt.so.13 cannot be loaded: cuBLAS of CUDA 13 is not installed or not on the library path"
    )]
    NoLibrary,
    /// A driver that cannot read our kernels.
    #[error("the NVIDIA driver supports CUDA {}.{}, CUDA 13.0 is needed", .0 / 1000, .0 % 1000 / 10)]
    DriverTooOld(i32),
    /// A library with another interface.
    #[error("cuBLASLt is of version {0}, 130000 or later is needed")]
    LibraryTooOld(usize),
    /// A driver without a GPU.
    #[error("the NVIDIA driver sees no GPU")]
    NoDevice,
    /// A number that no GPU has.
    #[error("there is no cuda:{ordinal}: the NVIDIA driver sees {count} GPUs, counted from 0")]
    NoSuchDevice {
        /// The number asked for.
        ordinal: usize,
        /// Count of GPUs.
        count: usize,
    },
    /// A GPU without the instructions that the kernels need.
    #[error("cuda:{ordinal} ({name}) has compute capability {major}.{minor}, 8.0 is needed")]
    DeviceTooOld {
        /// Number of the GPU.
        ordinal: usize,
        /// Name of the GPU.
        name: String,
        /// Major number of its compute capability.
        major: i32,
        /// Minor number of its compute capability.
        minor: i32,
    },
    /// The driver answers with an error.
    #[error("{what} failed: {reason}")]
    Failed {
        /// Call that failed.
        what: &'static str,
        /// The driver's reason.
        reason: String,
    },
}

/// First driver version that reads the output of nvcc 13.0.
const DRIVER_MIN: i32 = 13000;
const LIBRARY_MIN: usize = 130_000;
/// `mma` with bf16 and asynchronous copies.
const CAPABILITY_MAJOR_MIN: i32 = 8;

/// The names of the GPUs `ordinals`, if all of them can be used.
pub fn probe(ordinals: &[usize]) -> Result<Vec<String>, Unavailable> {
    // SAFETY: loads the driver's library and lets it go again; its initialisers are the driver's own.
    if !unsafe { sys::is_culib_present() } {
        return Err(Unavailable::NoDriver);
    }
    let mut version = 0;
    // SAFETY: the library is there, and `version` outlives the call.
    let asked = unsafe { sys::cuDriverGetVersion(&raw mut version) };
    check("cuDriverGetVersion", asked.result())?;
    if version < DRIVER_MIN {
        return Err(Unavailable::DriverTooOld(version));
    }
    // The library is checked before the driver is initialised: that takes a while, this does not.
    // SAFETY: as for the driver's library.
    if !unsafe { cublaslt::is_culib_present() } {
        return Err(Unavailable::NoLibrary);
    }
    // SAFETY: the library is there; the call has no operands.
    let library = unsafe { cublaslt::cublasLtGetVersion() };
    if library < LIBRARY_MIN {
        return Err(Unavailable::LibraryTooOld(library));
    }
    match result::init() {
        Err(DriverError(sys::cudaError_enum::CUDA_ERROR_NO_DEVICE)) => return Err(Unavailable::NoDevice),
        initialised => check("cuInit", initialised)?,
    }
    let count = check("cuDeviceGetCount", result::device::get_count())? as usize;
    if count == 0 {
        return Err(Unavailable::NoDevice);
    }
    ordinals.iter().map(|&ordinal| device(ordinal, count)).collect()
}

fn device(ordinal: usize, count: usize) -> Result<String, Unavailable> {
    use sys::CUdevice_attribute_enum as Attribute;
    if ordinal >= count {
        return Err(Unavailable::NoSuchDevice { ordinal, count });
    }
    let device = check("cuDeviceGet", result::device::get(ordinal as i32))?;
    let name = check("cuDeviceGetName", result::device::get_name(device))?;
    let attribute = |attribute| {
        // SAFETY: `device` is the handle that the driver has just given.
        let value = unsafe { result::device::get_attribute(device, attribute) };
        check("cuDeviceGetAttribute", value)
    };
    let major = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
    let minor = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
    if major < CAPABILITY_MAJOR_MIN {
        return Err(Unavailable::DeviceTooOld {
            ordinal,
            name,
            major,
            minor,
        });
    }
    Ok(name)
}

fn check<T>(what: &'static str, outcome: Result<T, DriverError>) -> Result<T, Unavailable> {
    outcome.map_err(|error| Unavailable::Failed {
        what,
        reason: super::card::reason(error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Machines without a GPU must get an error and no panic; machines with one must find it.
    #[test]
    #[cfg_attr(miri, ignore = "an interpreter loads no driver")]
    fn asking_never_ends_the_process() {
        match probe(&[0]) {
            Ok(names) => assert_eq!(names.len(), 1),
            Err(reason) => assert!(!reason.to_string().is_empty()),
        }
    }

    #[test]
    fn reasons_read_as_sentences() {
        let text = Unavailable::DriverTooOld(12040).to_string();
        assert_eq!(text, "the NVIDIA driver supports CUDA 12.4, CUDA 13.0 is needed");
    }
}
