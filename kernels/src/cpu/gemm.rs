//! The matrix product `a · bᵀ`: `b` packed into panels, one tile of results kept in registers.
//!
//! `b` is cut into panels of 32 of its rows (columns of the result). A panel is stored the way the
//! tile reads it, `[k][32]`, padded with zeros; `a` is read where it lies. Each result is summed over
//! k from first to last by one chain of multiply-adds, whatever the tile's height, so that a row's
//! result does not depend on the rows beside it.

use super::memory::Lines;
use super::vector::Vector;

/// Columns of the result that one panel yields.
pub(crate) const PANEL: usize = 32;

/// Rows of the largest tile of any path.
pub(crate) const TILE_ROWS_MAX: usize = 12;

/// Matrix `[n, k]` as panels.
pub(crate) struct Panels {
    values: Lines,
    n: usize,
    k: usize,
}

impl Panels {
    /// Packs `weight`, row-major `[n, k]`.
    pub(crate) fn pack(weight: &[f32], n: usize, k: usize) -> Self {
        let mut values = Lines::zeroed(n.next_multiple_of(PANEL) * k);
        for (panel, rows) in values.chunks_exact_mut(PANEL * k).zip(weight.chunks(PANEL * k)) {
            pack_panel(rows, k, k, panel);
        }
        Self { values, n, k }
    }

    pub(crate) fn n(&self) -> usize {
        self.n
    }

    pub(crate) fn k(&self) -> usize {
        self.k
    }

    pub(crate) fn count(&self) -> usize {
        self.n.div_ceil(PANEL)
    }

    pub(crate) fn panel(&self, index: usize) -> &[f32] {
        &self.values[index * PANEL * self.k..(index + 1) * PANEL * self.k]
    }
}

/// Packs up to 32 rows of `k` values, `stride` apart in `rows`, into `panel`. Columns of missing rows
/// keep what they hold.
pub(crate) fn pack_panel(rows: &[f32], stride: usize, k: usize, panel: &mut [f32]) {
    for (column, row) in rows.chunks(stride).enumerate() {
        for (cells, &value) in panel.chunks_exact_mut(PANEL).zip(&row[..k]) {
            cells[column] = value;
        }
    }
}

/// Where a tile reads and writes.
#[derive(Clone, Copy)]
pub(crate) struct Tile {
    /// First value of the first row of `a`.
    pub a: *const f32,
    /// From one row of `a` to the next.
    pub a_stride: usize,
    /// The panel, `[k][32]`.
    pub b: *const f32,
    /// Products in each sum.
    pub k: usize,
    /// First of the 32 results of the first row.
    pub c: *mut f32,
    /// From one row of results to the next.
    pub c_stride: usize,
    /// 32 values added to each row of results.
    pub bias: *const f32,
    /// Whether the results are added to what stands in `c`.
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

/// Computes `rows` ≤ [`Vector::TILE_ROWS`] rows of 32 results.
///
/// # Safety
/// For each row r: `a + r·a_stride` is valid for reading k values, `c + r·c_stride` for reading and
/// writing 32; `b` is valid for reading 32·k values and `bias` for 32. Nothing else accesses the
/// results meanwhile.
#[inline(always)]
pub(crate) unsafe fn tile<V: Vector>(v: V, rows: usize, at: Tile) {
    macro_rules! heights {
        ($($height:literal)+) => {
            match rows {
                // A path whose tile is lower never gets there; the test removes the code.
                $($height if $height <= V::TILE_ROWS => {
                    // SAFETY: the caller vouches for `rows` rows, and this is their number.
                    unsafe { tile_of::<V, $height>(v, at) }
                })+
                _ => {}
            }
        };
    }
    debug_assert!(rows <= V::TILE_ROWS);
    heights!(1 2 3 4 5 6 7 8 9 10 11 12);
}

/// # Safety
/// As for [`tile`] with `ROWS` rows.
#[inline(always)]
unsafe fn tile_of<V: Vector, const ROWS: usize>(v: V, at: Tile) {
    let mut column = 0;
    while column < PANEL {
        // SAFETY: `column` and the 2 · LANES columns from there lie within the panel's 32, because
        // 2 · LANES divides 32; the rest is what the caller vouches for.
        unsafe { half_tile::<V, ROWS>(v, at, column) };
        column += 2 * V::LANES;
    }
}

/// The part of a tile that the registers hold: two vectors a row.
///
/// # Safety
/// As for [`tile`] with `ROWS` rows, and `column + 2 · LANES ≤ 32`.
#[inline(always)]
unsafe fn half_tile<V: Vector, const ROWS: usize>(v: V, at: Tile, column: usize) {
    let mut sums = [[v.splat(0.0); 2]; ROWS];
    // SAFETY: k steps of a row of 32, each read at `column` and one vector further, are within b; row
    // r < ROWS of a is read at 0..k; row r of c at 2 vectors from `column`, as of bias.
    unsafe {
        let mut b = at.b.add(column);
        for step in 0..at.k {
            let b0 = v.load_at(b);
            let b1 = v.load_at(b.add(V::LANES));
            for (row, sums) in sums.iter_mut().enumerate() {
                let a = v.splat(*at.a.add(row * at.a_stride + step));
                sums[0] = v.fma(a, b0, sums[0]);
                sums[1] = v.fma(a, b1, sums[1]);
            }
            b = b.wrapping_add(PANEL);
        }
        let bias = [
            v.load_at(at.bias.add(column)),
            v.load_at(at.bias.add(column + V::LANES)),
        ];
        for (row, sums) in sums.iter().enumerate() {
            for half in 0..2 {
                let cell = at.c.add(row * at.c_stride + column + half * V::LANES);
                let mut sum = v.add(sums[half], bias[half]);
                if at.add {
                    sum = v.add(v.load_at(cell), sum);
                }
                v.store_at(sum, cell);
            }
        }
    }
}
