//! The sum of a token's word, position and type rows, normalised while it is in the cache; and the word table.

use half::bf16;

use super::layer_norm::normalise;
use super::memory::Table;
use super::vector::Vector;
use crate::dispatch::Kernel;
use crate::ops::{Embedding, Tokens};
use crate::precision::Format;

/// The word table: half of a small model's values, of which a batch reads a row for each token.
///
/// Where the linear layers are rounded, to bf16 or further, its rows are bf16: that takes half the memory, and
/// their rounding is small beside that of the layers.
pub struct Words {
    rows: Rows,
    count: usize,
    cols: usize,
}

enum Rows {
    Singles(Box<[f32]>),
    Halves(Box<[bf16]>),
}

impl Words {
    /// `values` holds at least one row of `cols`.
    pub(crate) fn new(format: Format, values: &[f32], cols: usize) -> Self {
        let rows = match format {
            Format::F32 => Rows::Singles(values.into()),
            Format::Bf16 | Format::Int8 => {
                Rows::Halves(values.iter().map(|&value| bf16::from_f32(value)).collect())
            }
        };
        Self {
            rows,
            count: values.len() / cols,
            cols,
        }
    }

    /// Rows and columns.
    pub fn shape(&self) -> (usize, usize) {
        (self.count, self.cols)
    }

    #[inline(always)]
    fn copy(&self, row: u32, to: &mut [f32]) {
        let start = row as usize * self.cols;
        match &self.rows {
            Rows::Singles(values) => to.copy_from_slice(&values[start..start + self.cols]),
            Rows::Halves(values) => {
                for (value, half) in to.iter_mut().zip(&values[start..start + self.cols]) {
                    // A bfloat16 is the upper half of an f32; the crate's own conversion asks for NaN, which
                    // keeps the loop from being vectorised.
                    *value = f32::from_bits(u32::from(half.to_bits()) << 16);
                }
            }
        }
    }
}

/// Fills `out` with the rows of the tokens from `first` on.
pub(crate) struct Embed<'a> {
    pub tokens: Tokens<'a>,
    pub tables: &'a Embedding<Words, Table>,
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
            word.copy(self.tokens.ids[token], row);
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
