//! Attention of each text over itself, head by head, with the softmax between two tiles of products.
//!
//! A task packs one head's keys and values of one text into its thread's scratch, then takes its
//! queries a tile at a time: scores against a block of keys, softmax, weights times values. Texts
//! longer than one block carry the running maximum and sum on (online softmax), so scratch grows with
//! the length of a text, never with its square.

#[cfg(target_arch = "x86_64")]
use super::amx_bf16::AmxBf16;
#[cfg(target_arch = "x86_64")]
use super::attention_tiled;
use super::gemm::{PANEL, Singles, TILE_ROWS_MAX, Tile, pack_panel, tile, tiles};
use super::memory::{Cells, Lines};
use super::threads::Threads;
#[cfg(target_arch = "x86_64")]
use super::tiled::Tiled;
use super::vector::Vector;
use crate::dispatch::{Kernel, Path};

/// Keys whose scores are held at once: with 12 queries, 24 KiB.
const BLOCK_KEYS: usize = 512;

/// Scratch of one thread.
#[derive(Default)]
pub(crate) struct Scratch {
    keys: Lines,
    values: Lines,
    scores: Lines,
    #[cfg(target_arch = "x86_64")]
    tiled: attention_tiled::TiledScratch,
}

/// Part of the work: some heads of one text, or some queries of one head.
#[derive(Clone, Copy)]
pub(crate) struct Task {
    pub(super) start: usize,
    pub(super) len: usize,
    pub(super) heads: (usize, usize),
    pub(super) queries: (usize, usize),
}

/// Instructions that compute.
#[derive(Clone, Copy)]
pub(crate) enum Way {
    /// In f32.
    Vectors(Path),
    /// In bfloat16, with the softmax in f32.
    #[cfg(target_arch = "x86_64")]
    Tiles(AmxBf16),
}

/// The shapes and operands that all tasks share.
#[derive(Clone, Copy)]
pub(crate) struct Operands<'a> {
    pub qkv: &'a [f32],
    pub heads: usize,
    pub head_dim: usize,
    /// `[heads, 2·len_max − 1]`, see [`crate::ops::relative_bias`].
    pub bias: Option<&'a [f32]>,
}

/// Attention of every text in `cu_seqlens`. `tasks` and `scratch` are the caller's to keep between calls.
pub(crate) fn attention(
    (way, threads): (Way, &Threads),
    operands: Operands<'_>,
    cu_seqlens: &[u32],
    out: &mut [f32],
    (tasks, scratch): (&mut Vec<Task>, &mut [Scratch]),
) {
    cut(cu_seqlens, operands.heads, threads.count(), tasks);
    let out = Cells::new(out);
    threads.each_with(scratch, tasks.len(), |scratch, task| {
        let task = tasks[task];
        match way {
            Way::Vectors(path) => path.run(Heads {
                operands,
                task,
                scratch,
                out,
            }),
            #[cfg(target_arch = "x86_64")]
            Way::Tiles(tiled) => tiled.enter(attention_tiled::Heads {
                operands,
                task,
                scratch: &mut scratch.tiled,
                out,
            }),
        }
    });
}

/// Cuts the batch into tasks of about equal work, some eight for each thread: the work for a head of a
/// text is the square of its length.
fn cut(cu_seqlens: &[u32], heads: usize, threads: usize, tasks: &mut Vec<Task>) {
    /// Below this a task is not worth its hand-over: one head of 48 tokens, some 3 µs.
    const WORK_MIN: usize = 48 * 48;
    tasks.clear();
    let texts = || {
        cu_seqlens
            .windows(2)
            .map(|text| (text[0] as usize, (text[1] - text[0]) as usize))
    };
    let total: usize = texts().map(|(_, len)| len * len * heads).sum();
    let target = if threads > 1 {
        (total / (8 * threads)).max(WORK_MIN)
    } else {
        usize::MAX
    };
    for (start, len) in texts() {
        let heads_each = (target / (len * len)).clamp(1, heads);
        // A task packs all keys again, so it takes enough queries to make up for it.
        let queries_each = (target / len).max(8 * TILE_ROWS_MAX);
        for head in (0..heads).step_by(heads_each) {
            let heads = (head, heads.min(head + heads_each));
            for query in (0..len).step_by(queries_each) {
                tasks.push(Task {
                    start,
                    len,
                    heads,
                    queries: (query, len.min(query + queries_each)),
                });
            }
        }
    }
}

struct Heads<'a> {
    operands: Operands<'a>,
    task: Task,
    scratch: &'a mut Scratch,
    out: Cells,
}

impl Kernel for Heads<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        let Task {
            len, heads, queries, ..
        } = self.task;
        let head_dim = self.operands.head_dim;
        self.scratch.keys.resize(len.next_multiple_of(PANEL) * head_dim);
        self.scratch.values.resize(len * head_dim.next_multiple_of(PANEL));
        self.scratch
            .scores
            .resize(TILE_ROWS_MAX * len.next_multiple_of(PANEL).min(BLOCK_KEYS));
        self.operands.prefetch(v, self.task, heads.0);
        for head in heads.0..heads.1 {
            if head + 1 < heads.1 {
                self.operands.prefetch(v, self.task, head + 1);
            }
            self.operands.pack(self.task, head, self.scratch);
            for (first, rows) in tiles(queries.1 - queries.0, V::TILE_ROWS) {
                let queries = Queries {
                    task: self.task,
                    head,
                    first: queries.0 + first,
                    rows,
                };
                queries.attend(v, &self.operands, self.scratch, self.out);
            }
        }
    }
}

impl Operands<'_> {
    /// The part (0 query, 1 key, 2 value) of a token's row that belongs to `head`: where it starts.
    #[inline(always)]
    pub(super) fn at(&self, token: usize, part: usize, head: usize) -> usize {
        ((token * 3 + part) * self.heads + head) * self.head_dim
    }

    #[inline(always)]
    fn stride(&self) -> usize {
        3 * self.heads * self.head_dim
    }

    /// Asks for all that a task reads of one head. Its pieces lie a whole row apart, which is more than a
    /// page, so no hardware prefetcher sees them coming.
    #[inline(always)]
    pub(super) fn prefetch<V: Vector>(&self, v: V, task: Task, head: usize) {
        const LINE: usize = 16;
        for token in task.start..task.start + task.len {
            for part in 0..3 {
                let at = self.at(token, part, head);
                for value in self.qkv[at..at + self.head_dim].iter().step_by(LINE) {
                    v.prefetch(value);
                }
            }
        }
    }

    /// Packs the keys as `[panel of 32 keys][head_dim][32]` and the values as
    /// `[panel of 32 columns][len][32]`.
    #[inline(always)]
    fn pack(&self, task: Task, head: usize, scratch: &mut Scratch) {
        let head_dim = self.head_dim;
        let end = task.start + task.len;
        for (panel, first) in scratch
            .keys
            .chunks_exact_mut(PANEL * head_dim)
            .zip((task.start..end).step_by(PANEL))
        {
            let last = end.min(first + PANEL) - 1;
            let rows = &self.qkv[self.at(first, 1, head)..self.at(last, 1, head) + head_dim];
            pack_panel(rows, self.stride(), head_dim, panel);
        }
        for (panel, first) in scratch
            .values
            .chunks_exact_mut(PANEL * task.len)
            .zip((0..head_dim).step_by(PANEL))
        {
            let cols = PANEL.min(head_dim - first);
            for (cells, token) in panel.chunks_exact_mut(PANEL).zip(task.start..end) {
                let from = self.at(token, 2, head) + first;
                if cols == PANEL {
                    cells.copy_from_slice(&self.qkv[from..from + PANEL]);
                } else {
                    cells[..cols].copy_from_slice(&self.qkv[from..from + cols]);
                    cells[cols..].fill(0.0);
                }
            }
        }
    }
}

/// One tile of queries of one head.
#[derive(Clone, Copy)]
struct Queries {
    task: Task,
    head: usize,
    first: usize,
    rows: usize,
}

/// The running softmax of each query of a tile.
struct Running {
    top: [f32; TILE_ROWS_MAX],
    sum: [f32; TILE_ROWS_MAX],
    /// Factors by which the results so far shrink, because the maximum rose.
    shrink: [f32; TILE_ROWS_MAX],
}

static ZEROS: [f32; PANEL] = [0.0; PANEL];

impl Queries {
    #[inline(always)]
    fn attend<V: Vector>(self, v: V, operands: &Operands<'_>, scratch: &mut Scratch, out: Cells) {
        let mut running = Running {
            top: [f32::NEG_INFINITY; TILE_ROWS_MAX],
            sum: [0.0; TILE_ROWS_MAX],
            shrink: [0.0; TILE_ROWS_MAX],
        };
        for block in (0..self.task.len).step_by(BLOCK_KEYS) {
            let keys = BLOCK_KEYS.min(self.task.len - block);
            let width = keys.next_multiple_of(PANEL);
            self.score(v, operands, scratch, block, width);
            for row in 0..self.rows {
                let scores = &mut scratch.scores[row * width..(row + 1) * width];
                let factor = self.transform(operands, row, block, &mut scores[..keys]);
                scores[keys..].fill(f32::NEG_INFINITY);
                running.soften(v, row, scores, factor, block == 0);
            }
            self.mix(v, operands, scratch, (block, keys, width), &running, out);
        }
    }

    /// Raw scores of the tile against the keys from `block` on, row-major, `width` a row.
    #[inline(always)]
    fn score<V: Vector>(
        self,
        v: V,
        operands: &Operands<'_>,
        scratch: &mut Scratch,
        block: usize,
        width: usize,
    ) {
        let head_dim = operands.head_dim;
        let first = operands.at(self.task.start + self.first, 0, self.head);
        let last = operands.at(self.task.start + self.first + self.rows - 1, 0, self.head);
        let a = &operands.qkv[first..last + head_dim];
        let panels = &scratch.keys[block * head_dim..(block + width) * head_dim];
        let scores = &mut scratch.scores[..self.rows * width];
        for (index, panel) in panels.chunks_exact(PANEL * head_dim).enumerate() {
            let at = Tile {
                a: a.as_ptr(),
                a_stride: operands.stride(),
                b: panel.as_ptr(),
                k: head_dim,
                row: 0,
                c: scores[index * PANEL..].as_mut_ptr(),
                c_stride: width,
                bias: ZEROS.as_ptr(),
                add: false,
            };
            // SAFETY: `a` reaches from the first query's values to the end of the last's; the panel holds
            // 32 · head_dim values; `scores` holds `rows` rows of `width`, of which this panel's 32 columns
            // are a part, and is borrowed here alone.
            unsafe { tile(Singles(v), self.rows, at) };
        }
    }

    /// Adds the relative bias, where there is one, to the scaled scores of one row. Returns the
    /// factor that makes the scores powers of two.
    #[inline(always)]
    fn transform(self, operands: &Operands<'_>, row: usize, block: usize, scores: &mut [f32]) -> f32 {
        let scale = 1.0 / (operands.head_dim as f32).sqrt();
        let Some(bias) = operands.bias else {
            return scale * std::f32::consts::LOG2_E;
        };
        let width = bias.len() / operands.heads;
        let start = self.head * width + width / 2 + block - (self.first + row);
        for (score, bias) in scores.iter_mut().zip(&bias[start..]) {
            *score = *score * scale + bias;
        }
        std::f32::consts::LOG2_E
    }

    /// Multiplies the weights of a block with its values, into the result of the blocks before.
    #[inline(always)]
    fn mix<V: Vector>(
        self,
        v: V,
        operands: &Operands<'_>,
        scratch: &Scratch,
        (block, keys, width): (usize, usize, usize),
        running: &Running,
        out: Cells,
    ) {
        let (len, head_dim) = (self.task.len, operands.head_dim);
        let (is_first, is_last) = (block == 0, block + keys == len);
        let weights = &scratch.scores[..self.rows * width];
        for (panel, column) in scratch
            .values
            .chunks_exact(PANEL * len)
            .zip((0..head_dim).step_by(PANEL))
        {
            let b = &panel[block * PANEL..(block + keys) * PANEL];
            let mut mixed = [0.0; TILE_ROWS_MAX * PANEL];
            let at = Tile {
                a: weights.as_ptr(),
                a_stride: width,
                b: b.as_ptr(),
                k: keys,
                row: 0,
                c: mixed.as_mut_ptr(),
                c_stride: PANEL,
                bias: ZEROS.as_ptr(),
                add: false,
            };
            // SAFETY: `weights` holds `rows` rows of `width` ≥ keys values, `b` 32 · keys, `mixed` 12 rows
            // of 32 results, borrowed here alone.
            unsafe { tile(Singles(v), self.rows, at) };
            let cols = PANEL.min(head_dim - column);
            for (row, mixed) in mixed.chunks_exact(PANEL).take(self.rows).enumerate() {
                let token = self.task.start + self.first + row;
                let at = (token * operands.heads + self.head) * head_dim + column;
                // SAFETY: `out` is borrowed while tasks run; no other task has this query of this head.
                let cells = unsafe { out.slice(at, cols) };
                let last = if is_last { 1.0 / running.sum[row] } else { 1.0 };
                if is_first {
                    for (cell, value) in cells.iter_mut().zip(mixed) {
                        *cell = value * last;
                    }
                } else {
                    let shrink = running.shrink[row];
                    for (cell, value) in cells.iter_mut().zip(mixed) {
                        *cell = (*cell * shrink + value) * last;
                    }
                }
            }
        }
    }
}

impl Running {
    /// Turns the scores of one row, a whole number of vectors, into weights `2^(factor · (score − top))`
    /// and takes them into the running sum.
    #[inline(always)]
    fn soften<V: Vector>(&mut self, v: V, row: usize, scores: &mut [f32], factor: f32, is_first: bool) {
        let mut tops = v.splat(self.top[row]);
        for scores in scores.chunks_exact(V::LANES) {
            tops = v.max(tops, v.load(scores));
        }
        // NaN may be lost here, but not below, where every score becomes a weight.
        let top = v.top(tops);
        let (factors, offset) = (v.splat(factor), v.splat(-top * factor));
        let mut sums = v.splat(0.0);
        for scores in scores.chunks_exact_mut(V::LANES) {
            let weights = v.exp2(v.fma(v.load(scores), factors, offset));
            sums = v.add(sums, weights);
            v.store(weights, scores);
        }
        let sum = v.sum(sums);
        if is_first {
            self.sum[row] = sum;
        } else {
            let shrink = v.lanes(v.exp2(v.splat((self.top[row] - top) * factor)))[0];
            self.sum[row] = self.sum[row] * shrink + sum;
            self.shrink[row] = shrink;
        }
        self.top[row] = top;
    }
}
