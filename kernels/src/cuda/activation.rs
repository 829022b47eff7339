//! Activations that no epilogue of a product computes exactly, over the whole matrix in place.

use super::Cuda;
use super::driver::{Driver, Dtype, Epilogue, Launch};
use super::memory::{Args, DeviceBuffer};
use crate::ops::{Activation, KernelError};

/// `ACTIVATION_THREADS` of cu/activation.cu.
const THREADS: u32 = 256;

/// Epilogue of the product, and the kernel that must follow it.
///
/// cuBLASLt's GELU is the tanh form. In f32, which is for checking, the library computes no activation.
pub(super) fn split(activation: Activation, dtype: Dtype) -> (Epilogue, Option<&'static str>) {
    match (activation, dtype) {
        (Activation::None, _) => (Epilogue::Bias, None),
        (Activation::Gelu, _) => (Epilogue::Bias, Some("gelu")),
        (Activation::Tanh, _) => (Epilogue::Bias, Some("tanh")),
        (Activation::GeluTanh, Dtype::F32) => (Epilogue::Bias, Some("gelu_tanh")),
        (Activation::GeluTanh, _) => (Epilogue::BiasGeluTanh, None),
        (Activation::Relu, Dtype::F32) => (Epilogue::Bias, Some("relu")),
        (Activation::Relu, _) => (Epilogue::BiasRelu, None),
    }
}

impl<D: Driver> Cuda<D> {
    pub(super) fn launch_activation(&mut self, kernel: &str, x: &DeviceBuffer<D>) -> Result<(), KernelError> {
        let rows = x.rows().span;
        let count = rows * x.stride();
        let each = 16 / self.dtype.bytes();
        let mut args = Args::default().address(x.address(&self.driver));
        args = args.address(count as u64);
        self.launch(Launch {
            kernel: format!("{kernel}_{}", self.dtype.name()),
            grid: (count.div_ceil(THREADS as usize * each) as u32, 1),
            threads: THREADS,
            shared: 0,
            args: args.bytes(),
            shape: (rows, x.shape().1),
        })
    }
}
