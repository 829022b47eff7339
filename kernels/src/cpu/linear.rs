//! The linear layers: a product cut into strips for the threads, with the activation or norm done on the spot.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::activation::activate;
#[cfg(target_arch = "x86_64")]
use super::bf16::{self, Avx512Bf16, Bf16Kernel};
use super::gemm::{PANEL, Panels, Product, Singles, TILE_ROWS_MAX, Tile, tile, tiles};
use super::int8::{self, ByteMatrix, Dot, DotKernel};
use super::layer_norm::LayerNorm;
#[cfg(target_arch = "x86_64")]
use super::matrix::Tiles;
use super::matrix::{Matrix, Vectors, Weights};
use super::memory::{Cells, Lines, Table, Word};
use super::threads::Threads;
#[cfg(target_arch = "x86_64")]
use super::tiled;
use super::vector::Vector;
use crate::dispatch::{Kernel, Path};
use crate::ops::{Activation, Norm};

/// Rows in the words that a matrix is multiplied with, where those are not f32. Kept between calls.
#[derive(Default)]
pub(crate) struct Packed {
    words: Lines<u32>,
    /// One for each row, where the form has such.
    scales: Lines,
}

impl Packed {
    /// Rows that one task packs.
    const ROWS: usize = 64;

    /// Makes room for `rows` rows and fills it: `pack` is given values, words and scales of some of them.
    pub(crate) fn fill(
        &mut self,
        threads: &Threads,
        (x, rows): (&[f32], usize),
        width: usize,
        pack: impl Fn(&[f32], &mut [u32], &mut [f32]) + Sync,
    ) {
        self.words.resize(rows * width);
        self.scales.resize(rows);
        let inp = x.len() / rows;
        let (words, scales) = (Cells::new(&mut self.words), Cells::new(&mut self.scales));
        threads.each(rows.div_ceil(Self::ROWS), |task| {
            let first = task * Self::ROWS;
            let rows = Self::ROWS.min(rows - first);
            // SAFETY: both are borrowed for this whole call; no other task has these rows.
            let (words, scales) = unsafe {
                (
                    words.slice(first * width, rows * width),
                    scales.slice(first, rows),
                )
            };
            pack(&x[first * inp..(first + rows) * inp], words, scales);
        });
    }

    /// Packed words of all rows, and their scales.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn rows(&self) -> (&[u32], &[f32]) {
        (&self.words, &self.scales)
    }
}

/// Buffers that linear layers keep between calls.
pub(crate) struct LinearBuffers {
    packed: Packed,
    counts: Vec<AtomicUsize>,
    #[cfg(target_arch = "x86_64")]
    blocks: Vec<tiled::BlockScratch>,
}

impl LinearBuffers {
    /// Buffers for `threads` threads.
    #[cfg_attr(
        not(target_arch = "x86_64"),
        allow(unused_variables, reason = "tiles alone need room for each thread")
    )]
    pub(crate) fn new(threads: usize) -> Self {
        Self {
            packed: Packed::default(),
            counts: Vec::new(),
            #[cfg(target_arch = "x86_64")]
            blocks: (0..threads).map(|_| tiled::BlockScratch::default()).collect(),
        }
    }
}

/// Path, threads and buffers of one product.
pub(crate) struct Device<'a> {
    pub path: Path,
    pub threads: &'a Threads,
    pub room: &'a mut LinearBuffers,
}

/// `out = activation(x · wᵀ + bias)`; `out` holds as many rows as `x`.
pub(crate) fn linear(device: Device<'_>, x: &[f32], w: &Matrix, activation: Activation, out: &mut [f32]) {
    let out = Cells::new(out);
    match &w.weights {
        #[cfg(target_arch = "x86_64")]
        Weights::Tiles(tiles) => on_tiles(device, x, (w, tiles), activation, None, out),
        Weights::Vectors(vectors) => {
            let plan = Plan::new(x.len() / w.inp(), (w, vectors), device.threads.count());
            let after = After {
                w,
                activation,
                add: false,
                out,
            };
            let Device { path, threads, room } = device;
            multiply(
                (path, threads, &mut room.packed),
                x,
                (&plan, vectors),
                after,
                |_| {},
            );
        }
    }
}

/// `sum = norm(sum + x · wᵀ + bias)`.
pub(crate) fn linear_add_norm(
    device: Device<'_>,
    x: &[f32],
    w: &Matrix,
    norm: &Norm<Table>,
    sum: &mut [f32],
) {
    let sum = Cells::new(sum);
    match &w.weights {
        #[cfg(target_arch = "x86_64")]
        Weights::Tiles(tiles) => on_tiles(device, x, (w, tiles), Activation::None, Some(norm), sum),
        Weights::Vectors(vectors) => add_norm(device, x, (w, vectors), norm, sum),
    }
}

/// Either of them, on tiles.
#[cfg(target_arch = "x86_64")]
fn on_tiles(
    Device { threads, room, .. }: Device<'_>,
    x: &[f32],
    (matrix, tiles): (&Matrix, &Tiles),
    activation: Activation,
    norm: Option<&Norm<Table>>,
    out: Cells,
) {
    let LinearBuffers {
        packed,
        counts,
        blocks,
    } = room;
    let room = tiled::TiledBuffers {
        threads,
        packed,
        counts,
        scratch: blocks,
    };
    macro_rules! layer {
        ($tiled:ident, $weights:ident) => {
            tiled::Layer {
                tiled: *$tiled,
                weights: $weights,
                matrix,
                activation,
                norm,
                out,
            }
        };
    }
    match tiles {
        Tiles::Bf16(tiled, weights) => tiled::linear(room, x, &layer!(tiled, weights)),
        Tiles::Bytes(tiled, weights) => tiled::linear(room, x, &layer!(tiled, weights)),
    }
}

/// The product and the norm on vectors.
fn add_norm(
    device: Device<'_>,
    x: &[f32],
    (w, vectors): (&Matrix, &Vectors),
    norm: &Norm<Table>,
    sum: Cells,
) {
    let Device { path, threads, room } = device;
    let LinearBuffers { packed, counts, .. } = room;
    let plan = Plan::new(x.len() / w.inp(), (w, vectors), threads.count());
    counts.clear();
    counts.resize_with(plan.blocks, AtomicUsize::default);
    let after = After {
        w,
        activation: Activation::None,
        add: true,
        out: sum,
    };
    multiply((path, threads, packed), x, (&plan, vectors), after, |area| {
        // The thread that completes a block's rows normalises them; acquiring what the others released
        // lets it see their cells.
        if counts[area.block].fetch_add(1, Ordering::AcqRel) + 1 == plan.panels {
            // SAFETY: `sum` is borrowed for this whole call. All strips of the block are done, and no
            // other block touches its rows.
            let rows = unsafe { sum.slice(area.first * w.out(), area.rows * w.out()) };
            path.run(LayerNorm { rows, norm });
        }
    });
}

/// Computes every strip of `plan`, and `done` after each.
fn multiply(
    (path, threads, packed): (Path, &Threads, &mut Packed),
    x: &[f32],
    (plan, vectors): (&Plan, &Vectors),
    after: After<'_>,
    done: impl Fn(Area) + Sync,
) {
    let each = |strip: &(dyn Fn(Area) + Sync)| {
        threads.each(plan.tasks(), |task| {
            let area = plan.area(task);
            strip(area);
            done(area);
        });
    };
    match vectors {
        Vectors::Singles(panels) => each(&|area| {
            path.run(Strip {
                after,
                area,
                a: x,
                panels,
            });
        }),
        #[cfg(target_arch = "x86_64")]
        Vectors::Bf16(proof, panels) => {
            packed.fill(threads, (x, plan.rows), panels.k(), |x, words, _| {
                let (inp, width) = (after.w.inp(), panels.k());
                proof.enter(bf16::Round { x, words, inp, width });
            });
            let a = &packed.words;
            each(&|area| {
                proof.enter(Strip {
                    after,
                    area,
                    a,
                    panels,
                });
            });
        }
        Vectors::Bytes(bytes, matrix) => {
            let panels = &matrix.panels;
            packed.fill(threads, (x, plan.rows), panels.k(), |x, words, scales| {
                path.run(int8::Quantise { x, words, scales });
            });
            let Packed { words: a, scales } = packed;
            each(&|area| {
                let strip = Strip {
                    after,
                    area,
                    a,
                    panels,
                };
                bytes.run(ByteStrip {
                    strip,
                    matrix,
                    scales,
                });
            });
        }
    }
}

/// Cut of a product: blocks of rows times single panels.
struct Plan {
    rows: usize,
    blocks: usize,
    panels: usize,
}

impl Plan {
    /// Words of `x` in one block at most: half of a 512 KiB second-level cache.
    const BLOCK_WORDS: usize = 64 * 1024;

    fn new(rows: usize, (w, vectors): (&Matrix, &Vectors), threads: usize) -> Self {
        let panels = w.out().div_ceil(PANEL);
        let fit = (Self::BLOCK_WORDS / vectors.words()).max(TILE_ROWS_MAX);
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

    /// Area of a task. Tasks take all panels of one block, then the next block.
    fn area(&self, task: usize) -> Area {
        let block = task / self.panels;
        let (height, taller) = (self.rows / self.blocks, self.rows % self.blocks);
        Area {
            block,
            first: block * height + block.min(taller),
            rows: height + usize::from(block < taller),
            panel: task % self.panels,
        }
    }
}

/// One panel's columns of one block's rows.
#[derive(Clone, Copy)]
struct Area {
    block: usize,
    first: usize,
    rows: usize,
    panel: usize,
}

/// Epilogue of a product, and the place of its results.
#[derive(Clone, Copy)]
struct After<'a> {
    w: &'a Matrix,
    activation: Activation,
    add: bool,
    out: Cells,
}

/// The work of one task.
struct Strip<'a, W> {
    after: After<'a>,
    area: Area,
    /// All rows of words.
    a: &'a [W],
    panels: &'a Panels<W>,
}

impl Kernel for Strip<'_, f32> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        self.compute(Singles(v));
    }
}

#[cfg(target_arch = "x86_64")]
impl Bf16Kernel for Strip<'_, u32> {
    type Output = ();

    #[inline(always)]
    fn run(self, proof: Avx512Bf16) {
        self.compute(proof);
    }
}

/// A strip of bytes, with the scales of all rows.
struct ByteStrip<'a> {
    strip: Strip<'a, u32>,
    matrix: &'a ByteMatrix,
    scales: &'a [f32],
}

impl DotKernel for ByteStrip<'_> {
    type Output = ();

    #[inline(always)]
    fn run<D: Dot>(self, dot: D) {
        let column = self.strip.area.panel * PANEL;
        self.strip.compute(self.matrix.product(dot, self.scales, column));
    }
}

impl<W: Word> Strip<'_, W> {
    #[inline(always)]
    fn compute<P: Product<Word = W>>(self, p: P) {
        let v = p.vector();
        let After {
            w,
            activation,
            add,
            out,
        } = self.after;
        let (n, k) = (w.out(), self.panels.k());
        let column = self.area.panel * PANEL;
        let cols = PANEL.min(n - column);
        let b = self.panels.panel(self.area.panel);
        let bias = &w.bias()[column..column + PANEL];
        for (start, rows) in tiles(self.area.rows, P::TILE_ROWS) {
            let row = self.area.first + start;
            let a = &self.a[row * k..(row + rows) * k];
            let span = (rows - 1) * n + cols;
            let at = Tile {
                a: a.as_ptr(),
                a_stride: k,
                b: b.as_ptr(),
                k,
                row,
                c: out.at(row * n + column, span),
                c_stride: n,
                bias: bias.as_ptr(),
                add,
            };
            // The results' lines travel while the tile computes; otherwise the next step waits for them.
            for row in 0..rows {
                for line in (0..cols).step_by(16) {
                    v.prefetch(at.c.wrapping_add(row * n + line));
                }
            }
            if cols == PANEL {
                // SAFETY: `a` holds `rows` rows of k words, `b` 32 · k, `bias` 32 values; `at` checked that the
                // last result lies within `out`. No other strip has this panel's columns of these rows.
                unsafe { tile(p, rows, at) };
            } else {
                let mut whole = [0.0; TILE_ROWS_MAX * PANEL];
                let aside = Tile {
                    c: whole.as_mut_ptr(),
                    c_stride: PANEL,
                    add: false,
                    ..at
                };
                // SAFETY: as above; `whole` holds 12 rows of 32 results and is this strip's own.
                unsafe { tile(p, rows, aside) };
                for (whole, row) in whole.chunks_exact(PANEL).zip(row..row + rows) {
                    // SAFETY: `out` is borrowed while strips run; no other strip has these cells.
                    let cells = unsafe { out.slice(row * n + column, cols) };
                    for (cell, value) in cells.iter_mut().zip(whole) {
                        *cell = if add { *cell + value } else { *value };
                    }
                }
            }
            if activation != Activation::None {
                for row in row..row + rows {
                    // SAFETY: `out` is borrowed while strips run; no other strip has these cells.
                    let cells = unsafe { out.slice(row * n + column, cols) };
                    activate(v, activation, cells);
                }
            }
        }
    }
}
