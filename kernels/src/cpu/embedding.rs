//! The sum of a token's word, position and type rows, normalised while it is in the cache.

use super::layer_norm::normalise;
use super::memory::Table;
use super::vector::Vector;
use crate::dispatch::Kernel;
use crate::ops::{Embedding, Tokens};

/// Fills `out` with the rows of the tokens from `first` on.
pub(crate) struct Embed<'a> {
    pub tokens: Tokens<'a>,
    pub tables: &'a Embedding<Table>,
    pub first: usize,
    pub out: &'a mut [f32],
}

impl Kernel for Embed<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        let Embedding {
            word,
            position,
            kind,
            norm,
        } = self.tables;
        let (gamma, beta) = (norm.gamma.values(), norm.beta.values());
        for (row, token) in self.out.chunks_exact_mut(gamma.len()).zip(self.first..) {
            row.copy_from_slice(word.row(self.tokens.ids[token]));
            if let Some(position) = position {
                add(row, position.row(self.tokens.positions[token]));
            }
            if let Some(kind) = kind {
                add(row, kind.row(self.tokens.kinds.get(token).copied().unwrap_or(0)));
            }
            normalise(v, row, gamma, beta, norm.eps);
        }
    }
}

#[inline(always)]
fn add(row: &mut [f32], other: &[f32]) {
    for (value, other) in row.iter_mut().zip(other) {
        *value += other;
    }
}
