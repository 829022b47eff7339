//! One row for each text, the whole batch in one launch.

use super::Cuda;
use super::driver::{Driver, Launch};
use super::memory::{Args, DeviceBuffer};
use crate::ops::{KernelError, Pooling};

/// `POOL_THREADS` of cu/pool.cu.
const THREADS: usize = 256;
/// Runs of columns that a block of `pool_mean` takes.
const MEAN_RUNS: usize = 32;

impl<D: Driver> Cuda<D> {
    pub(super) fn launch_pool(
        &mut self,
        x: &DeviceBuffer<D>,
        cu_seqlens: u64,
        pooling: Pooling,
        out: &DeviceBuffer<D>,
    ) -> Result<(), KernelError> {
        let (texts, (_, cols)) = (out.rows().span, out.shape());
        let each = 16 / self.dtype.bytes();
        let (kernel, runs, shared) = match pooling {
            Pooling::Mean => ("pool_mean", MEAN_RUNS, THREADS * each * 4),
            Pooling::Cls => ("pool_cls", THREADS, 0),
        };
        let args = Args::default()
            .address(x.address(&self.driver))
            .address(cu_seqlens)
            .address(out.address(&self.driver))
            .count(cols)
            .count(0);
        self.launch(Launch {
            kernel: format!("{kernel}_{}", self.dtype.name()),
            grid: (texts as u32, cols.div_ceil(runs * each) as u32),
            threads: THREADS as u32,
            shared: shared as u32,
            args: args.bytes(),
            shape: (x.rows().span, cols),
        })
    }
}
