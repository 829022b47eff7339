//! Embedding rows summed and normalised, a warp for each token.

use super::Cuda;
use super::driver::{Driver, Launch};
use super::layer_norm::{ROW_THREADS, ROWS_PER_BLOCK};
use super::memory::{Args, Buffer, Table};
use crate::ops::{Embedding, KernelError, Tokens};

impl<D: Driver> Cuda<D> {
    pub(super) fn launch_embedding(
        &mut self,
        tokens: Tokens<'_>,
        tables: &Embedding<Table<D>, Table<D>>,
        out: &Buffer<D>,
    ) -> Result<(), KernelError> {
        let (rows, cols) = out.shape();
        let base = self.tokens.post(&mut self.driver, |bytes| {
            for list in [tokens.ids, tokens.positions, tokens.kinds] {
                bytes.extend(list.iter().flat_map(|v| v.to_ne_bytes()));
            }
        })?;
        let behind = |values: usize| base + 4 * values as u64;
        let optional = |table: &Option<Table<D>>| table.as_ref().map_or(0, |t| t.address(&self.driver));
        let (position, kind) = (optional(&tables.position), optional(&tables.kind));
        let kinds = if tokens.kinds.is_empty() {
            0
        } else {
            behind(rows + tokens.positions.len())
        };
        let args = Args::default()
            .address(base)
            .address(behind(rows))
            .address(kinds)
            .address(tables.word.address(&self.driver))
            .address(position)
            .address(kind)
            .address(tables.norm.gamma.address(&self.driver))
            .address(tables.norm.beta.address(&self.driver))
            .address(out.address(&self.driver))
            .count(rows)
            .count(cols)
            .float(tables.norm.eps)
            .count(0);
        self.driver.launch(&Launch {
            kernel: &format!("embedding_{}", self.dtype.name()),
            grid: (rows.div_ceil(ROWS_PER_BLOCK) as u32, 1),
            threads: ROW_THREADS,
            shared: 0,
            args: args.bytes(),
            shape: (rows, cols),
        })
    }
}
