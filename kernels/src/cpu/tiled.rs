//! Linear layers on tiles: blocks of rows that a thread packs, multiplies and finishes without leaving its caches.
//!
//! Where there are fewer rows than make such blocks for all threads, a block's rows are packed by one and multiplied
//! by several, each with some of the panels.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::activation::{Function, Gelu, GeluTanh, Identity, Relu, Tanh};
use super::amx::{Amx, ROWS_MAX, Sums, ThreadTiles, WordFormat};
use super::gemm::{PANEL, Panels};
use super::layer_norm::LayerNorm;
use super::linear::Packed;
use super::matrix::Matrix;
use super::memory::{Cells, Lines, Table};
use super::threads::Threads;
use super::vector::Vector;
use super::vector_avx512::Avx512;
use crate::dispatch::Kernel;
use crate::ops::{Activation, Norm};

/// A register of results.
type Results = <Avx512 as Vector>::F;

/// A format that tiles multiply. The value itself is the proof that they can.
pub(crate) trait Tiled: Copy + Send + Sync {
    type Weights: Sync;
    /// Registers that hold for 16 outputs of every row.
    type Columns: Copy;
    const WORDS: WordFormat;

    fn amx(self) -> Amx;
    fn vector(self) -> Avx512;
    /// Runs `kernel`, compiled for the format's instructions.
    fn enter<K: TileKernel<Self>>(self, kernel: K) -> K::Output;
    fn panels(weights: &Self::Weights) -> &Panels<u32>;
    /// Packs rows of values: as many as `scales` has, which get the rows' own.
    fn pack(self, x: &[f32], words: &mut [u32], scales: &mut [f32]);
    fn columns(self, weights: &Self::Weights, column: usize) -> Self::Columns;
    /// 16 results of a row with this scale, from their sums.
    fn finish(self, columns: Self::Columns, scale: f32, sums: &[u32; 16]) -> Results;
}

/// Code that is compiled for a format.
pub(crate) trait TileKernel<T> {
    type Output;
    fn run(self, tiled: T) -> Self::Output;
}

/// A linear layer, and where its results go.
pub(crate) struct Layer<'a, T: Tiled> {
    pub tiled: T,
    pub weights: &'a T::Weights,
    pub matrix: &'a Matrix,
    pub activation: Activation,
    /// Norm of the sums; with it, results are added to the earlier values first.
    pub norm: Option<&'a Norm<Table>>,
    pub out: Cells,
}

/// Buffers of one thread.
#[derive(Default)]
pub(crate) struct BlockScratch {
    words: Lines<u32>,
    scales: Lines,
}

/// Buffers that are kept between calls.
pub(crate) struct TiledBuffers<'a> {
    pub threads: &'a Threads,
    pub packed: &'a mut Packed,
    pub scratch: &'a mut [BlockScratch],
    pub counts: &'a mut Vec<AtomicUsize>,
}

/// Computes `layer` for the rows of `x`.
pub(crate) fn linear<T: Tiled>(room: TiledBuffers<'_>, x: &[f32], layer: &Layer<'_, T>) {
    let TiledBuffers {
        threads,
        packed,
        scratch,
        counts,
    } = room;
    let (tiled, inp) = (layer.tiled, layer.matrix.inp());
    let panels = layer.matrix.out().div_ceil(PANEL);
    let plan = Plan::new(x.len() / inp, panels, threads.count());
    if plan.groups == 1 {
        threads.each_with(scratch, plan.blocks, |scratch, block| {
            let (first, rows) = plan.rows_of(block);
            let x = &x[first * inp..(first + rows) * inp];
            tiled.enter(Whole {
                layer,
                x,
                first,
                scratch,
            });
        });
        return;
    }
    counts.clear();
    counts.resize_with(plan.blocks, AtomicUsize::default);
    packed.fill(
        threads,
        (x, plan.rows),
        T::panels(layer.weights).k(),
        |x, words, scales| tiled.enter(Pack { x, words, scales }),
    );
    let (words, scales) = packed.rows();
    threads.each(plan.blocks * plan.groups, |task| {
        let (block, group) = (task / plan.groups, task % plan.groups);
        let (first, rows) = plan.rows_of(block);
        tiled.enter(Part {
            layer,
            words,
            scales,
            rows: first..first + rows,
            panels: plan.panels_of(group),
        });
        // The thread that completes a block's rows normalises them; acquiring what the others released lets it see
        // their cells.
        if let Some(norm) = layer.norm
            && counts[block].fetch_add(1, Ordering::AcqRel) + 1 == plan.groups
        {
            tiled.enter(Normalise {
                layer,
                norm,
                first,
                rows,
            });
        }
    });
}

/// Cut of a product: blocks of rows times groups of panels.
struct Plan {
    rows: usize,
    blocks: usize,
    panels: usize,
    groups: usize,
}

impl Plan {
    /// Rows of a block: its packed rows stay in the first cache level, and each panel is read once for all of it.
    const BLOCK_ROWS: usize = 2 * ROWS_MAX;
    /// Rows that a product takes at once, if there are as many.
    const UNIT: usize = ROWS_MAX / 2;

    fn new(rows: usize, panels: usize, threads: usize) -> Self {
        let blocks = rows.div_ceil(Self::BLOCK_ROWS);
        // Two blocks a thread at least, or three tasks, so that one that starts late finds less to do.
        let groups = if threads == 1 || blocks >= 2 * threads {
            1
        } else {
            (3 * threads).div_ceil(blocks).min(panels)
        };
        Self {
            rows,
            blocks,
            panels,
            groups,
        }
    }

    /// First row and number of rows of a block, whole units but for the last.
    fn rows_of(&self, block: usize) -> (usize, usize) {
        let (first, units) = share(self.rows.div_ceil(Self::UNIT), self.blocks, block);
        let first = first * Self::UNIT;
        (first, (units * Self::UNIT).min(self.rows - first))
    }

    fn panels_of(&self, group: usize) -> Range<usize> {
        let (first, count) = share(self.panels, self.groups, group);
        first..first + count
    }
}

/// The first of `count` things that the part `index` of `parts` has, and how many.
fn share(count: usize, parts: usize, index: usize) -> (usize, usize) {
    let (each, more) = (count / parts, count % parts);
    (index * each + index.min(more), each + usize::from(index < more))
}

/// A block with all panels, from packing to the norm.
struct Whole<'a, T: Tiled> {
    layer: &'a Layer<'a, T>,
    x: &'a [f32],
    first: usize,
    scratch: &'a mut BlockScratch,
}

impl<T: Tiled> TileKernel<T> for Whole<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self, tiled: T) {
        let BlockScratch { words, scales } = self.scratch;
        let rows = self.x.len() / self.layer.matrix.inp();
        words.resize(rows * T::panels(self.layer.weights).k());
        scales.resize(rows);
        tiled.pack(self.x, words, scales);
        self.layer.compute(
            words,
            scales,
            self.first,
            0..self.layer.matrix.out().div_ceil(PANEL),
        );
        if let Some(norm) = self.layer.norm {
            self.layer.normalise(norm, self.first, rows);
        }
    }
}

/// Packs some rows.
struct Pack<'a> {
    x: &'a [f32],
    words: &'a mut [u32],
    scales: &'a mut [f32],
}

impl<T: Tiled> TileKernel<T> for Pack<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self, tiled: T) {
        tiled.pack(self.x, self.words, self.scales);
    }
}

/// A block of packed rows with some of the panels.
struct Part<'a, T: Tiled> {
    layer: &'a Layer<'a, T>,
    words: &'a [u32],
    scales: &'a [f32],
    rows: Range<usize>,
    panels: Range<usize>,
}

impl<T: Tiled> TileKernel<T> for Part<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self, _: T) {
        let k = T::panels(self.layer.weights).k();
        let words = &self.words[self.rows.start * k..self.rows.end * k];
        let scales = &self.scales[self.rows.clone()];
        self.layer.compute(words, scales, self.rows.start, self.panels);
    }
}

/// Normalises the rows of a block.
struct Normalise<'a, T: Tiled> {
    layer: &'a Layer<'a, T>,
    norm: &'a Norm<Table>,
    first: usize,
    rows: usize,
}

impl<T: Tiled> TileKernel<T> for Normalise<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self, _: T) {
        self.layer.normalise(self.norm, self.first, self.rows);
    }
}

impl<T: Tiled> Layer<'_, T> {
    /// Multiplies packed rows with some panels; `first` is the row of `out` where the first one's results go.
    #[inline(always)]
    fn compute(&self, words: &[u32], scales: &[f32], first: usize, panels: Range<usize>) {
        let to = Singles { layer: self, first };
        match self.activation {
            Activation::None => product::<T, Identity>(&to, words, scales, panels),
            Activation::Gelu => product::<T, Gelu>(&to, words, scales, panels),
            Activation::GeluTanh => product::<T, GeluTanh>(&to, words, scales, panels),
            Activation::Relu => product::<T, Relu>(&to, words, scales, panels),
            Activation::Tanh => product::<T, Tanh>(&to, words, scales, panels),
        }
    }

    #[inline(always)]
    fn normalise(&self, norm: &Norm<Table>, first: usize, rows: usize) {
        let n = self.matrix.out();
        // SAFETY: `out` is borrowed while tasks run; all products of these rows are done, and no other task has them.
        let rows = unsafe { self.out.slice(first * n, rows * n) };
        LayerNorm { rows, norm }.run(self.tiled.vector());
    }
}

/// Results as f32.
struct Singles<'a, T: Tiled> {
    layer: &'a Layer<'a, T>,
    first: usize,
}

/// Multiplies all rows with each panel in turn, two tiles of rows at a time, then the rows left over.
#[inline(always)]
fn product<T: Tiled, F: Function>(to: &Singles<'_, T>, words: &[u32], scales: &[f32], panels: Range<usize>) {
    let whole = scales.len() / ROWS_MAX * ROWS_MAX;
    for (rows, height) in [(0..whole, ROWS_MAX), (whole..scales.len(), scales.len() - whole)] {
        if !rows.is_empty() {
            strips::<T, F>(to, (words, scales), (rows, height), panels.clone());
        }
    }
}

/// Multiplies `rows`, a multiple of `height`, with each panel in turn.
#[inline(always)]
fn strips<T: Tiled, F: Function>(
    to: &Singles<'_, T>,
    (words, scales): (&[u32], &[f32]),
    (rows, height): (Range<usize>, usize),
    panels: Range<usize>,
) {
    let Layer { tiled, weights, .. } = *to.layer;
    let weights = T::panels(weights);
    let k = weights.k();
    // SAFETY: neither products nor their finishing set the shape of tiles.
    let tiles = unsafe { ThreadTiles::shaped(tiled.amx(), height) };
    // The vectors finish one product while the tiles compute the next.
    let (mut one, mut two, mut pending) = (Sums::ZERO, Sums::ZERO, None);
    let (mut sums, mut last) = (&mut one, &mut two);
    for panel in panels {
        for row in rows.clone().step_by(height) {
            let a = &words[row * k..(row + height) * k];
            tiles.multiply(T::WORDS, a, weights.panel(panel), k, sums);
            if let Some((panel, row)) = pending.replace((panel, row)) {
                to.finish::<F>(panel, (row, &scales[row..row + height]), last);
            }
            std::mem::swap(&mut sums, &mut last);
        }
    }
    if let Some((panel, row)) = pending {
        to.finish::<F>(panel, (row, &scales[row..row + height]), last);
    }
}

impl<T: Tiled> Singles<'_, T> {
    /// Turns the sums of some rows and a panel into results.
    #[inline(always)]
    fn finish<F: Function>(&self, panel: usize, (first, scales): (usize, &[f32]), sums: &Sums) {
        let layer = self.layer;
        let Layer { tiled, weights, .. } = *layer;
        let (v, n, column) = (tiled.vector(), layer.matrix.out(), panel * PANEL);
        let cols = PANEL.min(n - column);
        let (columns, bias) = (
            [
                tiled.columns(weights, column),
                tiled.columns(weights, column + Avx512::LANES),
            ],
            &layer.matrix.bias()[column..column + PANEL],
        );
        let biases = [v.load(bias), v.load(&bias[Avx512::LANES..])];
        let add = layer.norm.is_some();
        let (sums, _) = sums.0.as_chunks::<16>();
        for (row, &scale) in scales.iter().enumerate() {
            let at = (self.first + first + row) * n + column;
            // SAFETY: `out` is borrowed while tasks run; no other task has these cells.
            let cells = unsafe { layer.out.slice(at, cols) };
            for half in 0..2 {
                let sums = &sums[2 * row + half];
                let result = v.add(tiled.finish(columns[half], scale, sums), biases[half]);
                let start = half * Avx512::LANES;
                if start + Avx512::LANES <= cols {
                    let cells = &mut cells[start..start + Avx512::LANES];
                    let sum = if add { v.add(v.load(cells), result) } else { result };
                    v.store(F::of(v, sum), cells);
                } else if start < cols {
                    finish_part::<F>(v, result, &mut cells[start..], add);
                }
            }
        }
    }
}

/// The results of a row for fewer outputs than a register has.
#[inline(always)]
fn finish_part<F: Function>(v: Avx512, result: Results, cells: &mut [f32], add: bool) {
    let sum = if add {
        v.add(v.load_part(cells, 0.0), result)
    } else {
        result
    };
    v.store_part(F::of(v, sum), cells);
}
