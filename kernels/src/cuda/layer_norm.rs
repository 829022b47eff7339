//! Residual plus layer norm, a warp for each row.

use super::Cuda;
use super::driver::{Driver, Launch};
use super::memory::{Args, COLS_STEP, DeviceBuffer, DeviceTable};
use crate::ops::{KernelError, Norm};

/// Rows of one block, and its threads: `ROWS_PER_BLOCK` and `ROW_THREADS` of cu/rows.cuh.
pub(super) const ROWS_PER_BLOCK: usize = 4;
pub(super) const ROW_THREADS: u32 = 128;
/// `ROW_COLS_MAX` of cu/rows.cuh: a lane holds its part of a row in registers.
const COLS_MAX: usize = 1024;

/// Rows of `cols` columns must fit a warp's registers in whole loads.
pub(super) fn check_cols(kernel: &'static str, cols: usize) -> Result<(), KernelError> {
    if cols <= COLS_MAX && cols.is_multiple_of(COLS_STEP) {
        return Ok(());
    }
    Err(KernelError::Unsupported {
        kernel,
        operand: "hidden size",
        value: cols,
        supported: "multiples of 8 up to 1024",
    })
}

impl<D: Driver> Cuda<D> {
    /// `sum = norm(sum + x)`.
    pub(super) fn launch_layer_norm(
        &mut self,
        x: &DeviceBuffer<D>,
        norm: &Norm<DeviceTable<D>>,
        sum: &DeviceBuffer<D>,
    ) -> Result<(), KernelError> {
        let (_, cols) = sum.shape();
        // Both reach over the rows that count; one that was not filled by a small batch's work has no more.
        let rows = sum.rows().span.min(x.rows().span);
        let args = Args::default()
            .address(x.address(&self.driver))
            .address(sum.address(&self.driver))
            .address(norm.gamma.address(&self.driver))
            .address(norm.beta.address(&self.driver))
            .count(rows)
            .count(cols)
            .float(norm.eps)
            .count(0);
        self.launch(Launch {
            kernel: format!("layer_norm_{}", self.dtype.name()),
            grid: (rows.div_ceil(ROWS_PER_BLOCK) as u32, 1),
            threads: ROW_THREADS,
            shared: 0,
            args: args.bytes(),
            shape: (rows, cols),
        })
    }
}
