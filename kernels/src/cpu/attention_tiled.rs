//! Attention on AMX tiles: products of bfloat16 pairs, the softmax between them in f32.
//!
//! A query's result depends neither on the queries beside it nor on the task that has it: a row of a tile is summed
//! alone, and blocks of keys begin at the same places for every query.

use std::ops::Range;

use super::amx::{ROWS_MAX, STEP, Sums, ThreadTiles, WordFormat};
use super::amx_bf16::AmxBf16;
use super::attention::{Operands, Task};
use super::gemm::{PANEL, pack_panel};
use super::memory::{Cells, Lines};
use super::tiled::{TileKernel, Tiled};
use super::vector::Vector;
use super::vector_avx512::Avx512;

/// Panels of keys whose scores are held at once: 32 KiB with 32 queries.
const BLOCK_PANELS: usize = 8;

/// Buffers of one thread.
#[derive(Default)]
pub(crate) struct TiledScratch {
    /// One row of words for each token of a panel.
    rows: Lines<u32>,
    /// `[rows][words of a head]`.
    queries: Lines<u32>,
    /// `[panel of 32 keys][words of a head][32]`.
    keys: Lines<u32>,
    /// `[panel of 32 columns][pairs of tokens][32]`.
    values: Lines<u32>,
    scores: Vec<Sums>,
    /// `[rows][pairs of tokens of a block]`.
    weights: Lines<u32>,
}

/// Some heads of one text, or some queries of one head.
pub(crate) struct Heads<'a> {
    pub operands: Operands<'a>,
    pub task: Task,
    pub scratch: &'a mut TiledScratch,
    pub out: Cells,
}

/// Sizes of one head in words and panels.
#[derive(Clone, Copy)]
struct Sizes {
    /// Words of a query or key, a multiple of [`STEP`].
    words: usize,
    /// Pairs of tokens, a multiple of [`STEP`]: a panel of keys is as many pairs.
    pairs: usize,
}

impl TileKernel<AmxBf16> for Heads<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self, tiled: AmxBf16) {
        let Heads {
            operands,
            task,
            scratch,
            out,
        } = self;
        let sizes = Sizes {
            words: operands.head_dim.div_ceil(2).next_multiple_of(STEP),
            pairs: task.len.div_ceil(2).next_multiple_of(STEP),
        };
        scratch.resize(sizes, operands.head_dim);
        let v = tiled.vector();
        operands.prefetch(v, task, task.heads.0);
        for head in task.heads.0..task.heads.1 {
            if head + 1 < task.heads.1 {
                operands.prefetch(v, task, head + 1);
            }
            let head = Head {
                tiled,
                operands,
                task,
                head,
                sizes,
            };
            head.pack_keys(scratch);
            head.pack_values(scratch);
            let (first, count) = (task.queries.0, task.queries.1 - task.queries.0);
            let whole = first + count / ROWS_MAX * ROWS_MAX;
            for (queries, height) in [
                (first..whole, ROWS_MAX),
                (whole..task.queries.1, task.queries.1 - whole),
            ] {
                if !queries.is_empty() {
                    head.attend(queries, height, scratch, out);
                }
            }
        }
    }
}

impl TiledScratch {
    fn resize(&mut self, sizes: Sizes, head_dim: usize) {
        let Sizes { words, pairs } = sizes;
        let block = (BLOCK_PANELS * STEP).min(pairs);
        self.rows.resize(PANEL * words);
        self.queries.resize(ROWS_MAX * words);
        self.keys.resize(2 * pairs * words);
        self.values.resize(head_dim.next_multiple_of(PANEL) * pairs);
        self.weights.resize(ROWS_MAX * block);
        if self.scores.is_empty() {
            self.scores.resize(BLOCK_PANELS, Sums::ZERO);
        }
    }
}

/// One head of one text.
#[derive(Clone, Copy)]
struct Head<'a> {
    tiled: AmxBf16,
    operands: Operands<'a>,
    task: Task,
    head: usize,
    sizes: Sizes,
}

/// The running softmax of each query of a tile.
struct Running {
    top: [f32; ROWS_MAX],
    sum: [f32; ROWS_MAX],
    /// Factor by which the results so far shrink, because the maximum rose.
    shrink: [f32; ROWS_MAX],
}

impl Head<'_> {
    /// Rounds one head's part of `tokens`, one row of words each.
    #[inline(always)]
    fn round(&self, tokens: Range<usize>, part: usize, rows: &mut [u32]) {
        for (token, row) in tokens.zip(rows.chunks_exact_mut(self.sizes.words)) {
            let at = self.operands.at(token, part, self.head);
            let values = &self.operands.qkv[at..at + self.operands.head_dim];
            self.tiled.rounding().round_row(values, row);
        }
    }

    #[inline(always)]
    fn pack_keys(&self, scratch: &mut TiledScratch) {
        let words = self.sizes.words;
        let end = self.task.start + self.task.len;
        for (panel, first) in scratch
            .keys
            .chunks_exact_mut(PANEL * words)
            .zip((self.task.start..end).step_by(PANEL))
        {
            let count = PANEL.min(end - first);
            self.round(first..first + count, 1, &mut scratch.rows);
            // Scores of missing keys are replaced, whatever they are; a NaN would cost time.
            scratch.rows[count * words..].fill(0);
            pack_panel(&scratch.rows, words, words, panel);
        }
    }

    #[inline(always)]
    fn pack_values(&self, scratch: &mut TiledScratch) {
        let (pairs, head_dim) = (self.sizes.pairs, self.operands.head_dim);
        let end = self.task.start + self.task.len;
        let zeros = [0.0; PANEL];
        for (panel, column) in scratch
            .values
            .chunks_exact_mut(PANEL * pairs)
            .zip((0..head_dim).step_by(PANEL))
        {
            let cols = PANEL.min(head_dim - column);
            for (words, token) in panel.chunks_exact_mut(PANEL).zip((self.task.start..).step_by(2)) {
                let row = |token: usize| {
                    if token < end {
                        let at = self.operands.at(token, 2, self.head) + column;
                        &self.operands.qkv[at..at + cols]
                    } else {
                        &zeros[..cols]
                    }
                };
                self.tiled
                    .rounding()
                    .round_pairs(row(token), row(token + 1), words);
            }
        }
    }

    /// Attention of `queries`, a multiple of `height`, over all tokens of the text.
    #[inline(always)]
    fn attend(&self, queries: Range<usize>, height: usize, scratch: &mut TiledScratch, out: Cells) {
        // SAFETY: nothing that is called before they go sets another shape.
        let tiles = unsafe { ThreadTiles::shaped(self.tiled.amx(), height) };
        for first in queries.step_by(height) {
            let start = self.task.start + first;
            self.round(start..start + height, 0, &mut scratch.queries);
            let mut running = Running {
                top: [f32::NEG_INFINITY; ROWS_MAX],
                sum: [0.0; ROWS_MAX],
                shrink: [0.0; ROWS_MAX],
            };
            for block in (0..self.sizes.pairs).step_by(BLOCK_PANELS * STEP) {
                let pairs = (BLOCK_PANELS * STEP).min(self.sizes.pairs - block);
                self.score(&tiles, (block, pairs), scratch);
                for row in 0..height {
                    self.soften(first, row, (block, pairs), &mut running, scratch);
                }
                self.mix(&tiles, (first, height), (block, pairs), &running, scratch, out);
            }
        }
    }

    /// Raw scores of a tile of queries against a block of keys.
    #[inline(always)]
    fn score(&self, tiles: &ThreadTiles, (block, pairs): (usize, usize), scratch: &mut TiledScratch) {
        let words = self.sizes.words;
        let keys = &scratch.keys[2 * block * words..2 * (block + pairs) * words];
        for (panel, sums) in keys.chunks_exact(PANEL * words).zip(&mut scratch.scores) {
            tiles.multiply(WordFormat::Halves, &scratch.queries, panel, words, sums);
        }
    }

    /// Turns the scores of one query into weights `2^(factor · (score − top))`, and adds them to the running sum.
    #[inline(always)]
    fn soften(
        &self,
        first: usize,
        row: usize,
        (block, pairs): (usize, usize),
        running: &mut Running,
        scratch: &mut TiledScratch,
    ) {
        let v = self.tiled.vector();
        let keys = 2 * block..self.task.len.min(2 * (block + pairs));
        let factor = self.transform(first + row, keys.clone(), row, &mut scratch.scores);
        let panels = &mut scratch.scores[..pairs / STEP];
        let mut tops = v.splat(running.top[row]);
        for sums in &mut *panels {
            let scores = sums.row(row);
            tops = v.max(tops, v.max(v.load(scores), v.load(&scores[Avx512::LANES..])));
        }
        // NaN may be lost here, but not below, where every score becomes a weight.
        let top = v.top(tops);
        let (factors, offset) = (v.splat(factor), v.splat(-top * factor));
        let mut sums = v.splat(0.0);
        let weights = &mut scratch.weights[row * pairs..(row + 1) * pairs];
        for (scores, words) in panels.iter_mut().zip(weights.chunks_exact_mut(STEP)) {
            let scores = scores.row(row);
            let low = v.exp2(v.fma(v.load(scores), factors, offset));
            let high = v.exp2(v.fma(v.load(&scores[Avx512::LANES..]), factors, offset));
            sums = v.add(sums, v.add(low, high));
            self.tiled.rounding().round_registers(low, high, words);
        }
        let sum = v.sum(sums);
        if block == 0 {
            running.sum[row] = sum;
        } else {
            let shrink = v.lanes(v.exp2(v.splat((running.top[row] - top) * factor)))[0];
            running.sum[row] = running.sum[row] * shrink + sum;
            running.shrink[row] = shrink;
        }
        running.top[row] = top;
    }

    /// Adds the relative bias, where there is one, to the scaled scores of one query, and hides keys that do not
    /// exist. Returns the factor that makes the scores powers of two.
    #[inline(always)]
    fn transform(&self, query: usize, keys: Range<usize>, row: usize, scores: &mut [Sums]) -> f32 {
        let scale = 1.0 / (self.operands.head_dim as f32).sqrt();
        let factor = match self.operands.bias {
            None => scale * std::f32::consts::LOG2_E,
            Some(bias) => {
                let width = bias.len() / self.operands.heads;
                let start = self.head * width + width / 2 + keys.start - query;
                let bias = &bias[start..start + keys.len()];
                for (sums, bias) in scores.iter_mut().zip(bias.chunks(PANEL)) {
                    for (score, bias) in sums.row(row).iter_mut().zip(bias) {
                        *score = *score * scale + bias;
                    }
                }
                std::f32::consts::LOG2_E
            }
        };
        if let rest @ 1.. = keys.len() % PANEL {
            scores[keys.len() / PANEL].row(row)[rest..].fill(f32::NEG_INFINITY);
        }
        factor
    }

    /// Multiplies the weights of a block with its values, into the results of the blocks before.
    #[inline(always)]
    fn mix(
        &self,
        tiles: &ThreadTiles,
        (first, height): (usize, usize),
        (block, pairs): (usize, usize),
        running: &Running,
        scratch: &TiledScratch,
        out: Cells,
    ) {
        let (heads, head_dim) = (self.operands.heads, self.operands.head_dim);
        let (is_first, is_last) = (block == 0, block + pairs == self.sizes.pairs);
        let weights = &scratch.weights[..height * pairs];
        let mut mixed = Sums::ZERO;
        for (panel, column) in scratch
            .values
            .chunks_exact(PANEL * self.sizes.pairs)
            .zip((0..head_dim).step_by(PANEL))
        {
            let values = &panel[block * PANEL..(block + pairs) * PANEL];
            tiles.multiply(WordFormat::Halves, weights, values, pairs, &mut mixed);
            let cols = PANEL.min(head_dim - column);
            for row in 0..height {
                let token = self.task.start + first + row;
                let at = (token * heads + self.head) * head_dim + column;
                // SAFETY: `out` is borrowed while tasks run; no other task has this query of this head.
                let cells = unsafe { out.slice(at, cols) };
                let last = if is_last { 1.0 / running.sum[row] } else { 1.0 };
                let shrink = running.shrink[row];
                for (cell, value) in cells.iter_mut().zip(mixed.row(row)) {
                    let before = if is_first { 0.0 } else { *cell * shrink };
                    *cell = (before + *value) * last;
                }
            }
        }
    }
}
