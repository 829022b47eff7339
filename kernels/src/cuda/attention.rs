//! Attention: how a batch is cut into tiles of queries, and the launches over them.

use super::Cuda;
use super::bucket::Bucket;
use super::driver::{Driver, Dtype, Launch};
use super::memory::{Args, DeviceBuffer, DeviceTable};
use super::small::Listed;
use crate::ops::KernelError;

/// Head sizes that cu/attention.cu is compiled for.
const HEAD_DIMS: [usize; 5] = [32, 64, 80, 96, 128];
/// Queries that one warp takes.
pub(super) const WARP_QUERIES: usize = 16;
/// Warps of a block: texts of up to 16, up to 32, and more tokens.
pub(super) const WARPS: [usize; KINDS] = [1, 2, 4];
/// Kinds of blocks.
pub(super) const KINDS: usize = 3;

/// A batch's sequences on the device, for as long as the batch keeps them.
#[derive(Default)]
pub(super) struct Sequences {
    /// Boundaries that lie on the device; empty where they were posted for one small batch.
    cu_seqlens: Vec<u32>,
    address: u64,
    tiles: u64,
    /// First tile of each kind of block; then the end of the last kind.
    bounds: [usize; KINDS + 1],
}

impl Sequences {
    /// Address of `cu_seqlens`.
    pub(super) fn address(&self) -> u64 {
        self.address
    }
}

/// Four words for each tile, as `Tile` of cu/attention.cuh; the blocks of each kind one after the other, and in a
/// bucket as many of each as it has, the rest without a text.
///
/// Texts are taken the longest first: the last ones are small, and all multiprocessors end together. The kind
/// of block for a text depends on its own length alone.
fn cut(cu_seqlens: &[u32], dtype: Dtype, bucket: Option<&Bucket>, bytes: &mut Vec<u8>) -> [usize; KINDS + 1] {
    let mut texts: Vec<(u32, u32)> = cu_seqlens
        .windows(2)
        .map(|text| (text[0], text[1] - text[0]))
        .collect();
    texts.sort_by_key(|&(_, len)| std::cmp::Reverse(len));
    let mut bounds = [0; KINDS + 1];
    let mut tiles = 0;
    for kind in 0..KINDS {
        bounds[kind] = tiles;
        for &(start, len) in texts.iter().filter(|(_, len)| kind_of(*len, dtype) == kind) {
            for query in (0..len).step_by(WARPS[kind] * WARP_QUERIES) {
                bytes.extend([start, len, query, 0].iter().flat_map(|v| v.to_ne_bytes()));
                tiles += 1;
            }
        }
        if let Some(bucket) = bucket {
            let end = bounds[kind] + bucket.tiles(kind);
            bytes.resize(bytes.len() + 16 * (end - tiles), 0);
            tiles = end;
        }
    }
    bounds[KINDS] = tiles;
    bounds
}

/// The kind of block for a text: the smallest that holds all its keys, else the widest.
pub(super) fn kind_of(len: u32, dtype: Dtype) -> usize {
    let widest = WARPS.len() - 1;
    if dtype == Dtype::F32 {
        return widest;
    }
    let holds = |warps: &usize| len as usize <= warps * WARP_QUERIES;
    WARPS.iter().position(holds).unwrap_or(widest)
}

impl Listed {
    /// Fills in the sequences, and says where they will lie.
    fn cut(&mut self, dtype: Dtype) -> Sequences {
        let layout = self.bucket.layout();
        let bytes = &mut self.inputs;
        bytes.truncate(layout.cu_seqlens);
        bytes.extend(self.cu_seqlens.iter().flat_map(|v| v.to_ne_bytes()));
        // Texts behind the batch's own begin and end where its last one ended.
        let end = self.cu_seqlens.last().copied().unwrap_or_default();
        for _ in self.cu_seqlens.len()..=self.bucket.texts {
            bytes.extend(end.to_ne_bytes());
        }
        bytes.resize(layout.tiles, 0);
        let bounds = cut(&self.cu_seqlens, dtype, Some(&self.bucket), bytes);
        self.is_cut = true;
        Sequences {
            // The next small batch has others in the same place.
            cu_seqlens: Vec::new(),
            address: self.address + layout.cu_seqlens as u64,
            tiles: self.address + layout.tiles as u64,
            bounds,
        }
    }
}

impl<D: Driver> Cuda<D> {
    /// Brings the sequences of a batch to the device, unless it is the batch they were brought for.
    pub(super) fn sequences(&mut self, cu_seqlens: &[u32]) -> Result<(), KernelError> {
        let dtype = self.dtype;
        if let Some(mut listed) = self.listed.take_if(|listed| listed.cu_seqlens == cu_seqlens) {
            if !listed.is_cut {
                self.sequences = listed.cut(dtype);
            }
            self.listed = Some(listed);
            return Ok(());
        }
        self.start_early()?;
        if self.sequences.cu_seqlens == cu_seqlens {
            return Ok(());
        }
        // Cleared first: after an error nothing counts as brought.
        self.sequences.cu_seqlens.clear();
        let mut bounds = [0; KINDS + 1];
        let list = (4 * cu_seqlens.len()).next_multiple_of(16);
        self.sequences.address = self.cuts.post(&mut self.driver, |bytes| {
            bytes.extend(cu_seqlens.iter().flat_map(|v| v.to_ne_bytes()));
            bytes.resize(list, 0);
            bounds = cut(cu_seqlens, dtype, None, bytes);
        })?;
        self.sequences.tiles = self.sequences.address + list as u64;
        self.sequences.bounds = bounds;
        self.sequences.cu_seqlens.extend_from_slice(cu_seqlens);
        Ok(())
    }

    /// Attention over the sequences that [`Cuda::sequences`] brought.
    pub(super) fn launch_attention(
        &mut self,
        qkv: &DeviceBuffer<D>,
        (heads, head_dim): (usize, usize),
        bias: Option<(&DeviceTable<D>, usize)>,
        out: &DeviceBuffer<D>,
    ) -> Result<(), KernelError> {
        for (kind, warps) in WARPS.into_iter().enumerate() {
            let (first, end) = (self.sequences.bounds[kind], self.sequences.bounds[kind + 1]);
            if first == end {
                continue;
            }
            let args = Args::default()
                .address(qkv.address(&self.driver))
                .address(out.address(&self.driver))
                .address(self.sequences.tiles + 16 * first as u64)
                .address(bias.map_or(0, |(table, _)| table.address(&self.driver)))
                .count(heads * head_dim)
                .count(bias.map_or(0, |(_, reach)| reach))
                .float(1.0 / (head_dim as f32).sqrt())
                .count(head_dim);
            let (kernel, shared) = if self.dtype == Dtype::F32 {
                ("attention_f32".to_owned(), 0)
            } else {
                let stages = if warps == 4 { 2 } else { 1 };
                // Keys and values, each row eight values longer than a head.
                let block = warps * WARP_QUERIES * (head_dim + 8) * self.dtype.bytes();
                let kernel = format!("attention_{}_{head_dim}_x{warps}", self.dtype.name());
                (kernel, 2 * stages * block)
            };
            self.launch(Launch {
                kernel,
                grid: ((end - first) as u32, heads as u32),
                threads: 32 * warps as u32,
                shared: shared as u32,
                args: args.bytes(),
                shape: (qkv.rows().span, qkv.shape().1),
            })?;
        }
        Ok(())
    }
}

/// Refuses a head size that no kernel has.
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
        let bounds = cut(&cu_seqlens, Dtype::F16, None, &mut bytes);
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

    #[test]
    fn in_a_bucket_every_kind_begins_at_the_same_place_for_all_lengths() {
        let tiles = |lens: &[u32]| {
            let mut cu_seqlens = vec![0];
            for len in lens {
                cu_seqlens.push(cu_seqlens[cu_seqlens.len() - 1] + len);
            }
            let bucket = Bucket::of(&cu_seqlens, Dtype::F16).unwrap();
            let mut bytes = Vec::new();
            let bounds = cut(&cu_seqlens, Dtype::F16, Some(&bucket), &mut bytes);
            let (words, _) = bytes.as_chunks::<4>();
            let lens: u32 = words
                .iter()
                .skip(1)
                .step_by(4)
                .map(|&w| u32::from_ne_bytes(w).min(1))
                .sum();
            (bucket, bounds, bytes.len() / 16, lens)
        };
        let (a, b) = (tiles(&[40, 7, 30, 3]), tiles(&[57, 5, 18]));
        assert_eq!((a.0, a.1, a.2), (b.0, b.1, b.2));
        assert_eq!(
            a.1,
            [0, 4, 8, 13],
            "four of one warp, four of two, up to five of four"
        );
        assert_eq!((a.3, b.3), (4, 3), "of which those with a text");
    }
}
