//! The linear layers: a product cut into strips for the threads, with what follows it done on the spot.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::activation::activate;
use super::gemm::{PANEL, Panels, TILE_ROWS_MAX, Tile, tile, tiles};
use super::layer_norm::LayerNorm;
use super::memory::{Cells, Lines, Table};
use super::threads::Threads;
use super::vector::Vector;
use crate::dispatch::{Kernel, Path};
use crate::ops::{Activation, Norm};

/// Weights as panels, with their bias.
pub struct Matrix {
    panels: Panels,
    /// Zeros where there is no bias, so that the tile need not ask.
    bias: Lines,
}

impl Matrix {
    pub(crate) fn new(weight: &[f32], bias: Option<&[f32]>, out: usize, inp: usize) -> Self {
        let mut padded = Lines::zeroed(out.next_multiple_of(PANEL));
        if let Some(bias) = bias {
            padded[..out].copy_from_slice(bias);
        }
        Self {
            panels: Panels::pack(weight, out, inp),
            bias: padded,
        }
    }

    /// Outputs.
    pub fn out(&self) -> usize {
        self.panels.n()
    }

    /// Inputs.
    pub fn inp(&self) -> usize {
        self.panels.k()
    }
}

/// `out = activation(x · wᵀ + bias)`; `out` holds as many rows as `x`.
pub(crate) fn linear(
    (path, threads): (Path, &Threads),
    x: &[f32],
    w: &Matrix,
    activation: Activation,
    out: &mut [f32],
) {
    let plan = Plan::new(x.len() / w.inp(), w, threads.count());
    let out = Cells::new(out);
    threads.each(plan.tasks(), |task| {
        let (block, panel) = plan.task(task);
        let (first, rows) = plan.rows(block);
        path.run(Strip {
            x,
            w,
            panel,
            first,
            rows,
            activation,
            add: false,
            out,
        });
    });
}

/// `sum = norm(sum + x · wᵀ + bias)`. `counts` is the caller's to keep between calls.
pub(crate) fn linear_add_norm(
    (path, threads): (Path, &Threads),
    x: &[f32],
    w: &Matrix,
    norm: &Norm<Table>,
    sum: &mut [f32],
    counts: &mut Vec<AtomicUsize>,
) {
    let plan = Plan::new(x.len() / w.inp(), w, threads.count());
    counts.clear();
    counts.resize_with(plan.blocks, AtomicUsize::default);
    let sum = Cells::new(sum);
    threads.each(plan.tasks(), |task| {
        let (block, panel) = plan.task(task);
        let (first, rows) = plan.rows(block);
        path.run(Strip {
            x,
            w,
            panel,
            first,
            rows,
            activation: Activation::None,
            add: true,
            out: sum,
        });
        // The thread that completes a block's rows normalises them; acquiring what the others released
        // lets it see their cells.
        if counts[block].fetch_add(1, Ordering::AcqRel) + 1 == plan.panels {
            // SAFETY: `sum` is borrowed for this whole call. All strips of the block are done, and no
            // other block touches its rows.
            let rows = unsafe { sum.slice(first * w.out(), rows * w.out()) };
            path.run(LayerNorm { rows, norm });
        }
    });
}

/// How a product is cut: blocks of rows times single panels.
struct Plan {
    rows: usize,
    blocks: usize,
    panels: usize,
}

impl Plan {
    /// Values of `x` in one block at most: half of a 512 KiB second-level cache.
    const BLOCK_VALUES: usize = 64 * 1024;

    fn new(rows: usize, w: &Matrix, threads: usize) -> Self {
        let panels = w.panels.count();
        let fit = (Self::BLOCK_VALUES / w.inp()).max(TILE_ROWS_MAX);
        // Three tasks a thread at least, so that one that starts late finds less to do than the others,
        // but no block lower than one tile.
        let wanted = if threads > 1 {
            (3 * threads).div_ceil(panels)
        } else {
            1
        };
        let blocks = rows.div_ceil(fit).max(wanted.min(rows.div_ceil(TILE_ROWS_MAX)));
        Self { rows, blocks, panels }
    }

    fn tasks(&self) -> usize {
        self.blocks * self.panels
    }

    /// Block and panel of a task: all panels of one block, then the next block.
    fn task(&self, task: usize) -> (usize, usize) {
        (task / self.panels, task % self.panels)
    }

    /// First row and number of rows of a block.
    fn rows(&self, block: usize) -> (usize, usize) {
        let (height, taller) = (self.rows / self.blocks, self.rows % self.blocks);
        (
            block * height + block.min(taller),
            height + usize::from(block < taller),
        )
    }
}

/// One panel's columns of one block's rows.
struct Strip<'a> {
    x: &'a [f32],
    w: &'a Matrix,
    panel: usize,
    first: usize,
    rows: usize,
    activation: Activation,
    add: bool,
    out: Cells,
}

impl Kernel for Strip<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        let (n, k) = (self.w.out(), self.w.inp());
        let column = self.panel * PANEL;
        let cols = PANEL.min(n - column);
        let b = self.w.panels.panel(self.panel);
        let bias = &self.w.bias[column..column + PANEL];
        for (start, rows) in tiles(self.rows, V::TILE_ROWS) {
            let row = self.first + start;
            let a = &self.x[row * k..(row + rows) * k];
            let span = (rows - 1) * n + cols;
            let at = Tile {
                a: a.as_ptr(),
                a_stride: k,
                b: b.as_ptr(),
                k,
                c: self.out.at(row * n + column, span),
                c_stride: n,
                bias: bias.as_ptr(),
                add: self.add,
            };
            // The results' lines travel while the tile computes; otherwise what follows waits for them.
            for row in 0..rows {
                for line in (0..cols).step_by(16) {
                    v.prefetch(at.c.wrapping_add(row * n + line));
                }
            }
            if cols == PANEL {
                // SAFETY: `a` holds `rows` rows of k values, `b` 32 · k, `bias` 32; `at` checked that the
                // last result lies within `out`. No other strip has this panel's columns of these rows.
                unsafe { tile(v, rows, at) };
            } else {
                let mut whole = [0.0; TILE_ROWS_MAX * PANEL];
                let aside = Tile {
                    c: whole.as_mut_ptr(),
                    c_stride: PANEL,
                    add: false,
                    ..at
                };
                // SAFETY: as above; `whole` holds 12 rows of 32 results and is this strip's own.
                unsafe { tile(v, rows, aside) };
                for (row, whole) in whole.chunks_exact(PANEL).take(rows).enumerate() {
                    // SAFETY: `out` is borrowed while strips run; no other strip has these cells.
                    let cells = unsafe { self.out.slice((self.first + start + row) * n + column, cols) };
                    for (cell, value) in cells.iter_mut().zip(whole) {
                        *cell = if self.add { *cell + value } else { *value };
                    }
                }
            }
            if self.activation != Activation::None {
                for row in row..row + rows {
                    // SAFETY: `out` is borrowed while strips run; no other strip has these cells.
                    let cells = unsafe { self.out.slice(row * n + column, cols) };
                    activate(v, self.activation, cells);
                }
            }
        }
    }
}
