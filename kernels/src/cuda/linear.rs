//! Products with weights, with an epilogue where the library has it.

use super::driver::{Driver, MatrixProduct, ROWS_STEP};
use super::memory::{COLS_STEP, DeviceBuffer, DeviceMatrix};
use super::{Cuda, activation};
use crate::ops::{Activation, KernelError};

impl<D: Driver> Cuda<D> {
    /// `out = activation(x · wᵀ + bias)`; shapes are checked.
    pub(super) fn multiply(
        &mut self,
        x: &DeviceBuffer<D>,
        w: &DeviceMatrix<D>,
        activation: Activation,
        out: &DeviceBuffer<D>,
    ) -> Result<(), KernelError> {
        let (epilogue, after) = activation::split(activation, self.dtype);
        self.product(MatrixProduct {
            x: x.address(&self.driver),
            weight: self.driver.address(&w.weight),
            bias: self.driver.address(&w.bias),
            out: out.address(&self.driver),
            rows: x.rows().span.next_multiple_of(ROWS_STEP),
            inp: w.inp(),
            out_cols: w.out().next_multiple_of(COLS_STEP),
            epilogue,
        })?;
        match after {
            Some(kernel) => self.launch_activation(kernel, out),
            None => Ok(()),
        }
    }
}
