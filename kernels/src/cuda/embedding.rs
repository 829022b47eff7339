//! Embedding rows summed and normalised, a warp for each token.

use super::Cuda;
use super::driver::{Driver, Launch};
use super::layer_norm::{ROW_THREADS, ROWS_PER_BLOCK};
use super::memory::{Args, DeviceBuffer, DeviceTable};
use crate::ops::{Embedding, KernelError, Tokens};

impl<D: Driver> Cuda<D> {
    pub(super) fn launch_embedding(
        &mut self,
        tokens: Tokens<'_>,
        tables: &Embedding<DeviceTable<D>, DeviceTable<D>>,
        out: &DeviceBuffer<D>,
    ) -> Result<(), KernelError> {
        let (_, cols) = out.shape();
        let rows = out.rows().span;
        let [ids, positions, kinds] = self.bring_tokens(tokens, rows)?;
        let optional = |table: &Option<DeviceTable<D>>| table.as_ref().map_or(0, |t| t.address(&self.driver));
        let (position, kind) = (optional(&tables.position), optional(&tables.kind));
        let args = Args::default()
            .address(ids)
            .address(positions)
            .address(if tokens.kinds.is_empty() { 0 } else { kinds })
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
        self.launch(Launch {
            kernel: format!("embedding_{}", self.dtype.name()),
            grid: (rows.div_ceil(ROWS_PER_BLOCK) as u32, 1),
            threads: ROW_THREADS,
            shared: 0,
            args: args.bytes(),
            shape: (rows, cols),
        })
    }

    /// Addresses of the ids, positions and types of `rows` rows, filled by the time the batch is started. Rows behind
    /// the tokens have 0 for each, which every table has.
    fn bring_tokens(&mut self, tokens: Tokens<'_>, rows: usize) -> Result<[u64; 3], KernelError> {
        if let Some(listed) = &mut self.listed {
            listed.tokens(tokens);
            let layout = listed.bucket.layout();
            return Ok([0, layout.positions, layout.kinds].map(|at| listed.address + at as u64));
        }
        let base = self.tokens.post(&mut self.driver, |bytes| {
            for list in [tokens.ids, tokens.positions, tokens.kinds] {
                let end = bytes.len() + 4 * rows;
                bytes.extend(list.iter().flat_map(|v| v.to_ne_bytes()));
                bytes.resize(end, 0);
            }
        })?;
        Ok([0, 1, 2].map(|list| base + (4 * rows * list) as u64))
    }
}
