//! Attention: how a batch is cut into tiles of queries, and the launches over them.

use super::Cuda;
use super::driver::{Driver, Dtype, Launch};
use super::memory::{Args, Buffer, Table};
use crate::ops::KernelError;

/// Head sizes that cu/attention.cu is compiled for.
const HEAD_DIMS: [usize; 5] = [32, 64, 80, 96, 128];
/// Queries that one warp takes.
const WARP_QUERIES: usize = 16;
/// Warps of a block: texts of up to 16, up to 32, and more tokens.
const WARPS: [usize; 3] = [1, 2, 4];

/// A batch's sequences on the device, for as long as the batch keeps them.
#[derive(Default)]
pub(super) struct Sequences {
    cu_seqlens: Vec<u32>,
    address: u64,
    /// Where the tiles of each kind of block begin, in tiles behind `cu_seqlens`; then their end.
    bounds: [usize; WARPS.len() + 1],
}

impl Sequences {
    /// Where `cu_seqlens` lies.
    pub(super) fn address(&self) -> u64 {
        self.address
    }

    fn tiles(&self, at: usize) -> u64 {
        let list = (4 * self.cu_seqlens.len()).next_multiple_of(16);
        self.address + (list + 16 * at) as u64
    }
}

/// Four words for each tile, as `Tile` of cu/attention.cuh; the blocks of each kind one after the other.
///
/// Texts are taken the longest first: what is left at the end is small, and all multiprocessors end
/// together. Which kind of block takes a text depends on its own length alone.
fn cut(cu_seqlens: &[u32], dtype: Dtype, bytes: &mut Vec<u8>) -> [usize; WARPS.len() + 1] {
    let mut texts: Vec<(u32, u32)> = cu_seqlens
        .windows(2)
        .map(|text| (text[0], text[1] - text[0]))
        .collect();
    texts.sort_by_key(|&(_, len)| std::cmp::Reverse(len));
    let mut bounds = [0; WARPS.len() + 1];
    let mut tiles = 0;
    for kind in 0..WARPS.len() {
        bounds[kind] = tiles;
        for &(start, len) in texts.iter().filter(|(_, len)| kind_of(*len, dtype) == kind) {
            for query in (0..len).step_by(WARPS[kind] * WARP_QUERIES) {
                bytes.extend([start, len, query, 0].iter().flat_map(|v| v.to_ne_bytes()));
                tiles += 1;
            }
        }
    }
    bounds[WARPS.len()] = tiles;
    bounds
}

/// The kind of block for a text: the smallest that holds all its keys, else the widest.
fn kind_of(len: u32, dtype: Dtype) -> usize {
    let widest = WARPS.len() - 1;
    if dtype == Dtype::F32 {
        return widest;
    }
    let holds = |warps: &usize| len as usize <= warps * WARP_QUERIES;
    WARPS.iter().position(holds).unwrap_or(widest)
}

impl<D: Driver> Cuda<D> {
    /// Brings the sequences of a batch to the device, unless it is the batch they were brought for.
    pub(super) fn sequences(&mut self, cu_seqlens: &[u32]) -> Result<(), KernelError> {
        if self.sequences.cu_seqlens == cu_seqlens {
            return Ok(());
        }
        // Cleared first: after an error nothing counts as brought.
        self.sequences.cu_seqlens.clear();
        let dtype = self.dtype;
        let mut bounds = [0; WARPS.len() + 1];
        self.sequences.address = self.cuts.post(&mut self.driver, |bytes| {
            bytes.extend(cu_seqlens.iter().flat_map(|v| v.to_ne_bytes()));
            bytes.resize(bytes.len().next_multiple_of(16), 0);
            bounds = cut(cu_seqlens, dtype, bytes);
        })?;
        self.sequences.bounds = bounds;
        self.sequences.cu_seqlens.extend_from_slice(cu_seqlens);
        Ok(())
    }

    /// Attention over the sequences that [`Cuda::sequences`] brought.
    pub(super) fn launch_attention(
        &mut self,
        qkv: &Buffer<D>,
        (heads, head_dim): (usize, usize),
        bias: Option<(&Table<D>, usize)>,
        out: &Buffer<D>,
    ) -> Result<(), KernelError> {
        for (kind, warps) in WARPS.into_iter().enumerate() {
            let (first, end) = (self.sequences.bounds[kind], self.sequences.bounds[kind + 1]);
            if first == end {
                continue;
            }
            let args = Args::default()
                .address(qkv.address(&self.driver))
                .address(out.address(&self.driver))
                .address(self.sequences.tiles(first))
                .address(bias.map_or(0, |(table, _)| table.address(&self.driver)))
                .count(heads * head_dim)
                .count(bias.map_or(0, |(_, reach)| reach))
                .float(1.0 / (head_dim as f32).sqrt())
                .count(head_dim);
            let name;
            let (kernel, shared) = if self.dtype == Dtype::F32 {
                ("attention_f32", 0)
            } else {
                name = format!("attention_{}_{head_dim}_x{warps}", self.dtype.name());
                let stages = if warps == 4 { 2 } else { 1 };
                // Keys and values, each row eight values longer than a head.
                let block = warps * WARP_QUERIES * (head_dim + 8) * self.dtype.bytes();
                (name.as_str(), 2 * stages * block)
            };
            self.driver.launch(&Launch {
                kernel,
                grid: ((end - first) as u32, heads as u32),
                threads: 32 * warps as u32,
                shared: shared as u32,
                args: args.bytes(),
                shape: qkv.shape(),
            })?;
        }
        Ok(())
    }
}

/// There must be a kernel for the head size.
pub(super) fn check_head_dim(head_dim: usize) -> Result<(), KernelError> {
    if HEAD_DIMS.contains(&head_dim) {
        return Ok(());
    }
    Err(KernelError::Unsupported {
        kernel: "attention",
        operand: "head size",
        value: head_dim,
        supported: "32, 64, 80, 96, 128",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_query_is_in_one_tile_of_the_kind_for_its_text() {
        let lens = [1_u32, 16, 17, 32, 33, 64, 65, 200];
        let mut cu_seqlens = vec![0];
        for len in lens {
            cu_seqlens.push(cu_seqlens[cu_seqlens.len() - 1] + len);
        }
        let mut bytes = Vec::new();
        let bounds = cut(&cu_seqlens, Dtype::F16, &mut bytes);
        let words: Vec<u32> = bytes
            .as_chunks::<4>()
            .0
            .iter()
            .map(|&b| u32::from_ne_bytes(b))
            .collect();
        let mut seen = vec![0; cu_seqlens[lens.len()] as usize];
        for (kind, warps) in WARPS.into_iter().enumerate() {
            for tile in words[4 * bounds[kind]..4 * bounds[kind + 1]].chunks_exact(4) {
                let (start, len, query) = (tile[0], tile[1], tile[2]);
                assert_eq!(warps, [1, 2, 4][usize::from(len > 16) + usize::from(len > 32)]);
                for query in query..len.min(query + (warps * WARP_QUERIES) as u32) {
                    seen[(start + query) as usize] += 1;
                }
            }
        }
        assert!(seen.iter().all(|&times| times == 1), "{seen:?}");
    }
}
