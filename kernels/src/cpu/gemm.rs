//! The matrix product `a · bᵀ`: `b` packed into panels, one tile of results kept in registers.
//!
//! `b` is cut into panels of 32 of its rows (columns of the result). A panel is stored the way the
//! tile reads it, `[k][32]`, padded with zeros; `a` is read where it lies. Each result is summed over
//! k from first to last by one chain of multiply-adds, whatever the tile's height, so that a row's
//! result does not depend on the rows beside it.
//!
//! Words have four bytes: one f32, two bf16 or four bytes, as the [`Product`] says. The tile is the same for all
//! of them.

use super::memory::{Lines, Word};
use super::vector::Vector;

/// Columns of the result that one panel yields.
pub(crate) const PANEL: usize = 32;

/// Rows of the largest tile of any path.
pub(crate) const TILE_ROWS_MAX: usize = 12;

/// Arithmetic of a tile on the words of `a` and `b`. The value itself is the proof that the processor can do it.
pub(crate) trait Product: Copy {
    /// Vectors of the results.
    type V: Vector;
    /// Words of `a` and `b`.
    type Word: Word;
    /// A register of words.
    type Words: Copy;
    /// A register of sums, one for each lane.
    type Sums: Copy;
    /// Rows of the largest tile. Two registers a row, those of the panel and those that a step needs fill the
    /// register file.
    const TILE_ROWS: usize;

    fn vector(self) -> Self::V;
    /// # Safety
    /// `from` is valid for reading as many words as a register has.
    unsafe fn load_at(self, from: *const Self::Word) -> Self::Words;
    /// # Safety
    /// `from` is valid for reading one word, which every lane gets.
    unsafe fn spread_at(self, from: *const Self::Word) -> Self::Words;
    /// The sums from `column` of the panel on, before the first step.
    fn start(self, column: usize) -> Self::Sums;
    /// `a · b + sums`.
    fn step(self, a: Self::Words, b: Self::Words, sums: Self::Sums) -> Self::Sums;
    /// The results of `row` from `column` of the panel on.
    fn finish(self, sums: Self::Sums, row: usize, column: usize) -> <Self::V as Vector>::F;
}

/// Words that are one f32 each.
#[derive(Clone, Copy)]
pub(crate) struct Singles<V>(pub V);

impl<V: Vector> Product for Singles<V> {
    type V = V;
    type Word = f32;
    type Words = V::F;
    type Sums = V::F;
    const TILE_ROWS: usize = V::TILE_ROWS;

    #[inline(always)]
    fn vector(self) -> V {
        self.0
    }

    #[inline(always)]
    unsafe fn load_at(self, from: *const f32) -> V::F {
        // SAFETY: the caller vouches for LANES values.
        unsafe { self.0.load_at(from) }
    }

    #[inline(always)]
    unsafe fn spread_at(self, from: *const f32) -> V::F {
        // SAFETY: the caller vouches for one value.
        self.0.splat(unsafe { *from })
    }

    #[inline(always)]
    fn start(self, _: usize) -> V::F {
        self.0.splat(0.0)
    }

    #[inline(always)]
    fn step(self, a: V::F, b: V::F, sums: V::F) -> V::F {
        self.0.fma(a, b, sums)
    }

    #[inline(always)]
    fn finish(self, sums: V::F, _: usize, _: usize) -> V::F {
        sums
    }
}

/// Matrix `[n, k]` as panels; `k` counts words.
pub(crate) struct Panels<W> {
    values: Lines<W>,
    k: usize,
}

impl<W: Word> Panels<W> {
    /// Packs `weight`, row-major `[n, k]`.
    pub(crate) fn pack(weight: &[W], n: usize, k: usize) -> Self {
        let mut values = Lines::zeroed(n.next_multiple_of(PANEL) * k);
        for (panel, rows) in values.chunks_exact_mut(PANEL * k).zip(weight.chunks(PANEL * k)) {
            pack_panel(rows, k, k, panel);
        }
        Self { values, k }
    }

    pub(crate) fn k(&self) -> usize {
        self.k
    }

    pub(crate) fn panel(&self, index: usize) -> &[W] {
        &self.values[index * PANEL * self.k..(index + 1) * PANEL * self.k]
    }
}

/// Packs up to 32 rows of `k` words, `stride` apart in `rows`, into `panel`. Columns of missing rows
/// stay as they are.
pub(crate) fn pack_panel<W: Word>(rows: &[W], stride: usize, k: usize, panel: &mut [W]) {
    for (column, row) in rows.chunks(stride).enumerate() {
        for (cells, &value) in panel.chunks_exact_mut(PANEL).zip(&row[..k]) {
            cells[column] = value;
        }
    }
}

/// Operands and results of a tile.
#[derive(Clone, Copy)]
pub(crate) struct Tile<W> {
    /// First word of the first row of `a`.
    pub a: *const W,
    /// From one row of `a` to the next.
    pub a_stride: usize,
    /// The panel, `[k][32]`.
    pub b: *const W,
    /// Words in each row.
    pub k: usize,
    /// The number by which the product knows the first row.
    pub row: usize,
    /// First of the 32 results of the first row.
    pub c: *mut f32,
    /// From one row of results to the next.
    pub c_stride: usize,
    /// 32 values added to each row of results.
    pub bias: *const f32,
    /// Whether the results are added to the values in `c`.
    pub add: bool,
}

/// Cuts `rows` into tiles of at most `limit` rows, all nearly of the same height: a tile of one or two
/// rows costs as much time as one of four. Yields (first row, rows).
#[inline(always)]
pub(crate) fn tiles(rows: usize, limit: usize) -> impl Iterator<Item = (usize, usize)> {
    let count = rows.div_ceil(limit).max(1);
    let (height, taller) = (rows / count, rows % count);
    (0..count).map(move |tile| {
        (
            tile * height + tile.min(taller),
            height + usize::from(tile < taller),
        )
    })
}

/// Computes `rows` ≤ [`Product::TILE_ROWS`] rows of 32 results.
///
/// # Safety
/// For each row r: `a + r·a_stride` is valid for reading k words, `c + r·c_stride` for reading and
/// writing 32 values; `b` is valid for reading 32·k words and `bias` for 32 values. Nothing else accesses
/// the results meanwhile.
#[inline(always)]
pub(crate) unsafe fn tile<P: Product>(p: P, rows: usize, at: Tile<P::Word>) {
    macro_rules! heights {
        ($($height:literal)+) => {
            match rows {
                // A path whose tile is lower never gets there; the test removes the code.
                $($height if $height <= P::TILE_ROWS => {
                    // SAFETY: the caller vouches for `rows` rows, and this is their number.
                    unsafe { tile_of::<P, $height>(p, at) }
                })+
                _ => {}
            }
        };
    }
    const { assert!(P::TILE_ROWS <= TILE_ROWS_MAX, "callers have room for no more") };
    debug_assert!(rows <= P::TILE_ROWS);
    heights!(1 2 3 4 5 6 7 8 9 10 11 12);
}

/// # Safety
/// As for [`tile`] with `ROWS` rows.
#[inline(always)]
unsafe fn tile_of<P: Product, const ROWS: usize>(p: P, at: Tile<P::Word>) {
    const {
        assert!(
            PANEL.is_multiple_of(2 * P::V::LANES),
            "pairs of vectors fill a panel"
        );
    };
    let mut column = 0;
    while column < PANEL {
        // SAFETY: the 2 · LANES columns from `column` on lie within the panel's 32, which 2 · LANES divides; the
        // caller vouches for the rest.
        unsafe { half_tile::<P, ROWS>(p, at, column) };
        column += 2 * P::V::LANES;
    }
}

/// The part of a tile that the registers hold: two vectors a row.
///
/// # Safety
/// As for [`tile`] with `ROWS` rows, and `column + 2 · LANES ≤ 32`.
#[inline(always)]
unsafe fn half_tile<P: Product, const ROWS: usize>(p: P, at: Tile<P::Word>, column: usize) {
    let v = p.vector();
    let mut sums = [[p.start(column), p.start(column + P::V::LANES)]; ROWS];
    // SAFETY: k steps of a row of 32, each read at `column` and one vector further, are within b; row
    // r < ROWS of a is read at 0..k; row r of c at 2 vectors from `column`, as of bias.
    unsafe {
        let mut b = at.b.add(column);
        for step in 0..at.k {
            let b0 = p.load_at(b);
            let b1 = p.load_at(b.add(P::V::LANES));
            for (row, sums) in sums.iter_mut().enumerate() {
                let a = p.spread_at(at.a.add(row * at.a_stride + step));
                sums[0] = p.step(a, b0, sums[0]);
                sums[1] = p.step(a, b1, sums[1]);
            }
            b = b.wrapping_add(PANEL);
        }
        let bias = [
            v.load_at(at.bias.add(column)),
            v.load_at(at.bias.add(column + P::V::LANES)),
        ];
        for (row, sums) in sums.iter().enumerate() {
            for half in 0..2 {
                let first = column + half * P::V::LANES;
                let cell = at.c.add(row * at.c_stride + first);
                let mut sum = v.add(p.finish(sums[half], at.row + row, first), bias[half]);
                if at.add {
                    sum = v.add(v.load_at(cell), sum);
                }
                v.store_at(sum, cell);
            }
        }
    }
}
