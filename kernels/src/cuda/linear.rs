//! Products with weights, with an epilogue where the library has it.

use super::driver::{Driver, Product, ROWS_STEP};
use super::memory::{Buffer, COLS_STEP, Matrix};
use super::{Cuda, activation};
use crate::ops::{Activation, KernelError};

impl<D: Driver> Cuda<D> {
    /// `out = activation(x · wᵀ + bias)`; shapes are checked.
    pub(super) fn multiply(
        &mut self,
        x: &Buffer<D>,
        w: &Matrix<D>,
        activation: Activation,
        out: &Buffer<D>,
    ) -> Result<(), KernelError> {
        let (epilogue, after) = activation::split(activation, self.dtype);
        self.product(Product {
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
