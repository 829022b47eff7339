//! Buckets of small batches that count as alike: they do the same work over the same memory, and differ only in
//! the inputs that are posted for them.

use std::fmt;

use super::attention::{KINDS, WARP_QUERIES, WARPS, kind_of};
use super::driver::Dtype;

/// A batch of more tokens keeps the device busy for longer than its launches take.
const TOKENS_MAX: usize = 512;
const TEXTS_MAX: usize = 32;

/// Sizes of the small batches that count as alike: each batch is filled up to them.
///
///Rows behind a batch's own hold earlier values, and their results are never read. Texts behind its own have no
///tokens, and neither have attention's tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Bucket {
    /// Tokens at most.
    pub tokens: usize,
    /// Texts at most.
    pub texts: usize,
    /// Kinds of attention's blocks in the batch. A kind without blocks is not launched.
    kinds: [bool; KINDS],
}

/// Offset of each list in the posted inputs of a batch, in bytes.
pub(super) struct Layout {
    pub positions: usize,
    pub kinds: usize,
    pub cu_seqlens: usize,
    pub tiles: usize,
    pub end: usize,
}

impl Bucket {
    /// The bucket of a batch; none where it is too large.
    pub fn of(cu_seqlens: &[u32], dtype: Dtype) -> Option<Bucket> {
        let texts = cu_seqlens.len().checked_sub(1)?;
        let tokens = *cu_seqlens.last()? as usize;
        if tokens == 0 || tokens > TOKENS_MAX || texts > TEXTS_MAX {
            return None;
        }
        let mut kinds = [false; KINDS];
        for text in cu_seqlens.windows(2) {
            kinds[kind_of(text[1].saturating_sub(text[0]), dtype)] = true;
        }
        // Up to 128 tokens every step of the products' rows; further up eight steps between two powers of two.
        let step = (tokens.next_power_of_two() / 8).max(16);
        Some(Bucket {
            tokens: tokens.next_multiple_of(step),
            texts: texts.next_power_of_two(),
            kinds,
        })
    }

    /// Tiles of a kind of block at most: one for each text, or, of the widest, as many as whole tiles and one
    /// begun by each text.
    pub fn tiles(&self, kind: usize) -> usize {
        match WARPS.get(kind) {
            Some(_) if !self.kinds[kind] => 0,
            Some(&warps) if kind + 1 == KINDS => {
                let queries = warps * WARP_QUERIES;
                (self.tokens + (queries - 1) * self.texts) / queries
            }
            Some(_) => self.texts,
            None => 0,
        }
    }

    /// Ids, positions, types, `cu_seqlens`, tiles.
    pub fn layout(&self) -> Layout {
        let list = 4 * self.tokens;
        let cu_seqlens = 3 * list;
        let tiles = (cu_seqlens + 4 * (self.texts + 1)).next_multiple_of(16);
        let count: usize = (0..KINDS).map(|kind| self.tiles(kind)).sum();
        Layout {
            positions: list,
            kinds: 2 * list,
            cu_seqlens,
            tiles,
            end: tiles + 16 * count,
        }
    }

    /// Bytes posted for a batch of any bucket at most.
    pub fn bytes_max() -> usize {
        let largest = Bucket {
            tokens: TOKENS_MAX,
            texts: TEXTS_MAX,
            kinds: [true; KINDS],
        };
        largest.layout().end
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} tokens in {} texts, attention in blocks of",
            self.tokens, self.texts
        )?;
        let present = WARPS.iter().zip(self.kinds).filter(|(_, present)| *present);
        for (place, (warps, _)) in present.enumerate() {
            write!(f, "{} {warps}", if place > 0 { "," } else { "" })?;
        }
        f.write_str(" warps")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(lens: &[u32], expected: &str) {
        let mut cu_seqlens = vec![0];
        for len in lens {
            cu_seqlens.push(cu_seqlens[cu_seqlens.len() - 1] + len);
        }
        let found = Bucket::of(&cu_seqlens, Dtype::F16).map_or_else(|| "none".to_owned(), |b| b.to_string());
        assert_eq!(found, expected, "{lens:?}");
    }

    #[test]
    fn alike_are_batches_of_about_the_same_tokens_texts_and_lengths() {
        check(&[1], "16 tokens in 1 texts, attention in blocks of 1 warps");
        check(&[128], "128 tokens in 1 texts, attention in blocks of 4 warps");
        check(&[129], "160 tokens in 1 texts, attention in blocks of 4 warps");
        check(
            &[40, 7, 30],
            "80 tokens in 4 texts, attention in blocks of 1, 2, 4 warps",
        );
        check(
            &[16; 32],
            "512 tokens in 32 texts, attention in blocks of 1 warps",
        );
        check(&[9; 33], "none");
        check(&[513], "none");
        check(&[], "none");
    }

    #[test]
    fn a_bucket_holds_every_batch_that_is_taken_for_it() {
        for seed in 1..2000_u32 {
            // Any lengths at all: a walk through the residues of a prime.
            let mut lens = Vec::new();
            let mut walk = u64::from(seed);
            while lens.len() < 1 + seed as usize % 32 {
                walk = walk * 48_271 % 2_147_483;
                lens.push(1 + (walk % [20, 40, 150][seed as usize % 3]) as u32);
            }
            let mut cu_seqlens = vec![0];
            for len in &lens {
                cu_seqlens.push(cu_seqlens[cu_seqlens.len() - 1] + len);
            }
            for dtype in [Dtype::F16, Dtype::F32] {
                let Some(bucket) = Bucket::of(&cu_seqlens, dtype) else {
                    continue;
                };
                let tokens = cu_seqlens[lens.len()] as usize;
                assert!(bucket.tokens >= tokens && bucket.texts >= lens.len(), "{lens:?}");
                assert!(bucket.tokens - tokens < 16.max(tokens / 4 + 1), "{lens:?}");
                for (kind, warps) in WARPS.into_iter().enumerate() {
                    let of_kind = lens.iter().filter(|&&len| kind_of(len, dtype) == kind);
                    let tiles: usize = of_kind
                        .map(|&len| (len as usize).div_ceil(warps * WARP_QUERIES))
                        .sum();
                    assert!(tiles <= bucket.tiles(kind), "{lens:?}");
                }
                assert!(bucket.layout().end <= Bucket::bytes_max());
            }
        }
    }
}
