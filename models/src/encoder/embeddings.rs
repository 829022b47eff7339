//! The first layer: rows for word, position and token type, summed and normalised. Also the relative bias.

use penstock_core::PackedTokens;
use penstock_kernels::{Embedding, KernelError, Norm, Ops, Tokens};

use crate::ModelError;
use crate::config::Config;
use crate::weights::Weights;

pub(super) struct Embeddings<O: Ops> {
    tables: Embedding<O::Words, O::Table>,
    padding: Option<u32>,
}

impl<O: Ops> Embeddings<O> {
    pub(super) fn load(config: &Config, weights: &Weights, ops: &O) -> Result<Embeddings<O>, ModelError> {
        let read = |name: &str, rows: usize| weights.read(&weights.encoder(name), &[rows, config.hidden]);
        let table = |name: &str, rows: usize| -> Result<O::Table, ModelError> {
            Ok(ops.table(&read(name, rows)?, rows, config.hidden)?)
        };
        let words = "embeddings.word_embeddings.weight";
        Ok(Embeddings {
            tables: Embedding {
                word: ops.words(&read(words, config.vocabulary)?, config.vocabulary, config.hidden)?,
                position: Some(table("embeddings.position_embeddings.weight", config.positions)?),
                kind: match config.kinds {
                    0 => None,
                    rows => Some(table("embeddings.token_type_embeddings.weight", rows)?),
                },
                norm: norm(config, weights, ops, "embeddings.LayerNorm")?,
            },
            padding: config.padding,
        })
    }

    /// `places` is a buffer that the caller keeps between batches.
    pub(super) fn forward(
        &self,
        ops: &mut O,
        batch: &PackedTokens,
        places: &mut Vec<u32>,
        out: &mut O::Buffer,
    ) -> Result<(), KernelError> {
        positions(batch, self.padding, places);
        // Every token of a single text is of type 0.
        let tokens = Tokens {
            ids: &batch.ids,
            positions: places,
            kinds: &[],
        };
        ops.embed(tokens, &self.tables, out)
    }
}

/// Row of the position table for each token. Where positions depend on the padding id, only tokens other than
/// padding are counted. A padding token inside a text, which the text spells out, has the row of padding. The
/// original does the same.
fn positions(batch: &PackedTokens, padding: Option<u32>, out: &mut Vec<u32>) {
    out.clear();
    for ends in batch.cu_seqlens.windows(2) {
        match padding {
            None => out.extend(0..ends[1] - ends[0]),
            Some(padding) => {
                let mut next = padding;
                out.extend(batch.ids[ends[0] as usize..ends[1] as usize].iter().map(|&id| {
                    if id == padding {
                        return padding;
                    }
                    next += 1;
                    next
                }));
            }
        }
    }
}

/// The norm `name` of the encoder.
pub(super) fn norm<O: Ops>(
    config: &Config,
    weights: &Weights,
    ops: &O,
    name: &str,
) -> Result<Norm<O::Table>, ModelError> {
    let row = |half: &str| -> Result<O::Table, ModelError> {
        let values = weights.read(&weights.encoder(&format!("{name}.{half}")), &[config.hidden])?;
        Ok(ops.table(&values, 1, config.hidden)?)
    };
    Ok(Norm {
        gamma: row("weight")?,
        beta: row("bias")?,
        eps: config.eps,
    })
}

/// The relative attention bias, spread over all distances in the window; `None` for families without one.
pub(super) fn relative_bias<O: Ops>(
    config: &Config,
    weights: &Weights,
    ops: &O,
) -> Result<Option<O::Table>, ModelError> {
    let Some(name) = config.family.names().relative_bias else {
        return Ok(None);
    };
    let table = weights.read(&weights.encoder(name), &[config.buckets, config.heads])?;
    let window = config.window();
    let spread = penstock_kernels::relative_bias(&table, config.heads, window, |offset| {
        bucket(offset, config.buckets)
    })?;
    Ok(Some(ops.table(&spread, config.heads, 2 * window - 1)?))
}

/// Bucket of T5, for both directions: one for each small distance, then ever wider ones up to 128 tokens.
/// `offset` is positive for a key behind its query.
fn bucket(offset: isize, buckets: usize) -> usize {
    const DISTANCE_MAX: f32 = 128.0;
    let half = buckets / 2;
    let side = if offset > 0 { half } else { 0 };
    let distance = offset.unsigned_abs();
    let exact = half / 2;
    if distance < exact {
        return side + distance;
    }
    // The original computes in f32 throughout, and the edges of the buckets depend on its rounding.
    let share = (distance as f32 / exact as f32).ln() / (DISTANCE_MAX / exact as f32).ln();
    let wide = exact + (share * (half - exact) as f32) as usize;
    side + wide.min(half - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_restart_with_every_text() {
        let batch = PackedTokens::from_texts([[5, 6, 7].as_slice(), &[8, 9]]);
        let mut out = vec![99];
        positions(&batch, None, &mut out);
        assert_eq!(out, [0, 1, 2, 0, 1]);
        positions(&batch, Some(1), &mut out);
        assert_eq!(out, [2, 3, 4, 2, 3]);
    }

    #[test]
    fn a_padding_token_in_a_text_has_the_row_of_padding_and_is_not_counted() {
        let batch = PackedTokens::from_texts([[5, 1, 7].as_slice()]);
        let mut out = Vec::new();
        positions(&batch, Some(1), &mut out);
        assert_eq!(out, [2, 1, 3]);
    }

    #[test]
    fn buckets_are_exact_when_near_and_bounded_when_far() {
        let check =
            |offset: isize, expected: usize| assert_eq!(bucket(offset, 32), expected, "offset {offset}");
        check(0, 0);
        check(-1, 1);
        check(-7, 7);
        check(-8, 8);
        check(-127, 15);
        check(-10_000, 15);
        check(1, 17);
        check(7, 23);
        check(8, 24);
        check(10_000, 31);
    }
}
