//! The operations on the processor: shapes checked here, once, before any kernel starts.

#![allow(
    clippy::inline_always,
    reason = "code is compiled for a path only where it is inlined into it"
)]

mod activation;
#[cfg(target_arch = "x86_64")]
pub(crate) mod amx;
#[cfg(target_arch = "x86_64")]
pub(crate) mod amx_bf16;
#[cfg(target_arch = "x86_64")]
pub(crate) mod amx_int8;
pub(crate) mod attention;
#[cfg(target_arch = "x86_64")]
mod attention_tiled;
#[cfg(target_arch = "x86_64")]
pub(crate) mod bf16;
mod embedding;
mod fork_join;
pub(crate) mod gemm;
pub(crate) mod int8;
#[cfg(target_arch = "x86_64")]
pub(crate) mod int8_avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod int8_avx512;
#[cfg(target_arch = "aarch64")]
pub(crate) mod int8_neon;
pub(crate) mod int8_portable;
mod layer_norm;
mod linear;
mod matrix;
mod memory;
pub mod peak;
mod pin;
mod pool;
mod preemption;
mod threads;
#[cfg(target_arch = "x86_64")]
mod tiled;
pub(crate) mod vector;
#[cfg(target_arch = "x86_64")]
pub(crate) mod vector_avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod vector_avx512;
#[cfg(target_arch = "aarch64")]
pub(crate) mod vector_neon;
pub(crate) mod vector_portable;

use std::collections::VecDeque;

use parking_lot::Mutex;

pub use self::embedding::Words;
pub use self::matrix::Matrix;
pub use self::memory::{Buffer, Table};

use self::embedding::Embed;
use self::memory::Cells;
use self::pool::Pool;
use self::preemption::Place;
pub use self::threads::Threads;
use crate::check;
use crate::dispatch::Path;
use crate::ops::{Activation, Embedding, KernelError, Norm, Ops, Pooling, Priority, Sharing, Tokens};
use crate::precision::Precision;

/// Rows that one task embeds.
const EMBED_ROWS: usize = 64;

/// Preemption points between the products of this device.
struct Preemptible {
    /// Team whose urgent forwards run there.
    team: Threads,
    /// Count of threads that compute side by side where this device is one of their seats; 1 otherwise.
    side_by_side: usize,
}

/// The processor as a device.
pub struct Cpu {
    path: Path,
    precision: Precision,
    threads: Threads,
    linear: linear::LinearBuffers,
    scratch: Vec<attention::Scratch>,
    attention_tasks: Vec<attention::Task>,
    /// Copies of this processor, one for each thread, for the parts of a batch that threads compute by themselves.
    seats: Vec<Cpu>,
    /// Team of the seats.
    helpers: Threads,
    /// Copy of this processor for a forward that preempts another.
    inside: Option<Box<Cpu>>,
    /// Preemption points; `None` where this device has none.
    preemptible: Option<Preemptible>,
    sharing: Sharing,
    sent: VecDeque<Vec<f32>>,
    spare: Vec<Vec<f32>>,
}

impl Cpu {
    /// A processor that computes in f32 with `threads` threads of its own and its widest instructions.
    pub fn new(threads: usize) -> Result<Self, KernelError> {
        Self::with_path(threads, Path::best())
    }

    /// A processor as [`Cpu::new`] makes, on a chosen path.
    pub fn with_path(threads: usize, path: Path) -> Result<Self, KernelError> {
        Ok(Self::on(Threads::new(threads)?, path, Precision::F32))
    }

    /// A processor that computes with a team that others use too, its linear layers in `precision`.
    pub fn on(threads: Threads, path: Path, precision: Precision) -> Self {
        let mut cpu = Self::seat(threads, path, precision);
        let count = cpu.threads.count();
        let preemptible = |side_by_side| {
            let team = cpu.threads.clone();
            Some(Preemptible { team, side_by_side })
        };
        let mut seats = Vec::new();
        if count > 1 {
            cpu.helpers = Threads::helped(count);
            seats.extend((0..count).map(|_| Self {
                preemptible: preemptible(count),
                ..Self::seat(cpu.helpers.clone(), path, precision)
            }));
        }
        Self {
            seats,
            preemptible: preemptible(1),
            ..cpu
        }
    }

    /// A processor without seats and without preemption points.
    fn seat(threads: Threads, path: Path, precision: Precision) -> Self {
        let count = threads.count();
        let scratch = (0..count).map(|_| attention::Scratch::default()).collect();
        Self {
            path,
            precision,
            threads,
            linear: linear::LinearBuffers::new(count),
            scratch,
            attention_tasks: Vec::new(),
            seats: Vec::new(),
            helpers: Threads::helped(1),
            inside: None,
            preemptible: None,
            sharing: Sharing::default(),
            sent: VecDeque::new(),
            spare: Vec::new(),
        }
    }

    /// Threads that compute.
    pub fn threads(&self) -> usize {
        self.threads.count()
    }

    /// Copy for preempting forwards: the existing one, or a new one where a panic took that along.
    fn take_inside(&mut self) -> Option<Box<Cpu>> {
        self.inside.take().or_else(|| {
            let threads = self.threads.inside()?.clone();
            Some(Box::new(Self::seat(threads, self.path, self.precision)))
        })
    }

    /// Runs an urgent forward between two products, if one waits.
    fn preemption_point(&self) {
        if let Some(Preemptible { team, side_by_side }) = &self.preemptible {
            team.preemption_point(*side_by_side);
        }
    }

    /// Path, threads and buffers of linear layers.
    fn device(&mut self) -> linear::Device<'_> {
        linear::Device {
            path: self.path,
            threads: &self.threads,
            room: &mut self.linear,
        }
    }

    /// The instructions in use.
    pub fn path(&self) -> Path {
        self.path
    }

    /// Precision of the products with matrices that this device packs.
    pub fn precision(&self) -> Precision {
        self.precision
    }
}

impl Ops for Cpu {
    /// One: the threads that compute also prepare.
    const IN_FLIGHT: usize = 1;

    type Matrix = Matrix;
    type Table = Table;
    type Words = Words;
    type Buffer = Buffer;

    fn matrix(
        &self,
        weight: &[f32],
        bias: Option<&[f32]>,
        out: usize,
        inp: usize,
    ) -> Result<Matrix, KernelError> {
        check::filled("matrix", "weight", weight, (out, inp))?;
        if let Some(bias) = bias {
            check::length("matrix", "bias", bias.len(), out)?;
        }
        Matrix::new(self.precision.0, weight, bias, out, inp)
    }

    fn table(&self, values: &[f32], rows: usize, cols: usize) -> Result<Table, KernelError> {
        check::filled("table", "values", values, (rows, cols))?;
        Ok(Table::new(values, rows, cols))
    }

    fn words(&self, values: &[f32], rows: usize, cols: usize) -> Result<Words, KernelError> {
        check::filled("words", "values", values, (rows, cols))?;
        Ok(Words::new(self.precision.format(), values, cols))
    }

    fn buffer(&self) -> Buffer {
        Buffer::default()
    }

    fn shape(&self, buffer: &Buffer) -> (usize, usize) {
        buffer.shape()
    }

    fn write(
        &mut self,
        values: &[f32],
        rows: usize,
        cols: usize,
        out: &mut Buffer,
    ) -> Result<(), KernelError> {
        check::filled("write", "values", values, (rows, cols))?;
        out.reshape(rows, cols);
        out.values_mut().copy_from_slice(values);
        Ok(())
    }

    fn send(&mut self, x: &Buffer) -> Result<(), KernelError> {
        check::not_empty("send", "x", x.shape())?;
        let mut values = self.spare.pop().unwrap_or_default();
        values.clear();
        values.extend_from_slice(x.values());
        self.sent.push_back(values);
        Ok(())
    }

    fn receive(&mut self, out: &mut Vec<f32>) -> Result<(), KernelError> {
        out.clear();
        if let Some(mut values) = self.sent.pop_front() {
            std::mem::swap(out, &mut values);
            self.spare.push(values);
        }
        Ok(())
    }

    fn forward(
        &mut self,
        _: &[u32],
        priority: Priority,
        work: impl FnOnce(&mut Self) -> Result<(), KernelError> + Send,
    ) -> Result<(), KernelError> {
        let (threads, mut inside) = (self.threads.clone(), self.take_inside());
        let (done, sharing) = threads.forward(priority, |place| match (place, &mut inside) {
            (Place::Inside, Some(cpu)) => {
                // Rows that `cpu` sends are received here, so their memory comes back here.
                cpu.spare.extend(self.spare.pop());
                let done = work(cpu);
                self.sent.append(&mut cpu.sent);
                done
            }
            (Place::Inside, None) | (Place::Team, _) => work(self),
        });
        (self.inside, self.sharing) = (inside, sharing);
        done
    }

    fn sharing(&self) -> Sharing {
        self.sharing
    }

    /// One before each of the four products of a layer.
    fn preemption_points(layers: usize) -> usize {
        4 * layers
    }

    fn settle(&self) -> Result<(), KernelError> {
        self.threads.settle()
    }

    fn seats(&self) -> usize {
        self.seats.len()
    }

    fn side_by_side<P: Send>(
        &mut self,
        parts: &mut [P],
        work: impl Fn(&mut Self, &mut P) -> Result<(), KernelError> + Sync,
    ) -> Result<(), KernelError> {
        if self.seats.is_empty() {
            return parts.iter_mut().try_for_each(|part| work(self, part));
        }
        // Each part is one task, so its lock is always free.
        let parts: Vec<_> = parts.iter_mut().map(|part| Mutex::new((part, Ok(())))).collect();
        let helpers = &self.helpers;
        self.threads
            .each_helped(helpers, &mut self.seats, parts.len(), |cpu, task| {
                let (part, outcome) = &mut *parts[task].lock();
                *outcome = work(cpu, part);
            });
        parts.into_iter().try_for_each(|part| part.into_inner().1)
    }

    fn embed(
        &mut self,
        tokens: Tokens<'_>,
        tables: &Embedding<Words, Table>,
        out: &mut Buffer,
    ) -> Result<(), KernelError> {
        check::tokens(tokens, &embedding_shapes(tables))?;
        let (rows, (_, cols)) = (tokens.ids.len(), tables.word.shape());
        out.reshape(rows, cols);
        let cells = Cells::new(out.values_mut());
        self.threads.each(rows.div_ceil(EMBED_ROWS), |task| {
            let first = task * EMBED_ROWS;
            let rows = EMBED_ROWS.min(rows - first);
            // SAFETY: `out` is borrowed for this whole call; no other task has these rows.
            let out = unsafe { cells.slice(first * cols, rows * cols) };
            self.path.run(Embed {
                tokens,
                tables,
                first,
                out,
            });
        });
        Ok(())
    }

    fn linear(
        &mut self,
        x: &Buffer,
        w: &Matrix,
        activation: Activation,
        out: &mut Buffer,
    ) -> Result<(), KernelError> {
        let (rows, _) = x.shape();
        self.preemption_point();
        check::not_empty("linear", "x", x.shape())?;
        check::shape("linear", "x", x.shape(), (rows, w.inp()))?;
        out.reshape(rows, w.out());
        linear::linear(self.device(), x.values(), w, activation, out.values_mut());
        Ok(())
    }

    fn linear_add_norm(
        &mut self,
        x: &Buffer,
        w: &Matrix,
        norm: &Norm<Table>,
        residual: &mut Buffer,
    ) -> Result<(), KernelError> {
        const KERNEL: &str = "linear_add_norm";
        let (rows, _) = x.shape();
        self.preemption_point();
        check::not_empty(KERNEL, "x", x.shape())?;
        check::shape(KERNEL, "x", x.shape(), (rows, w.inp()))?;
        check::shape(KERNEL, "residual", residual.shape(), (rows, w.out()))?;
        check::norm(KERNEL, (norm.gamma.shape(), norm.beta.shape()), w.out())?;
        linear::linear_add_norm(self.device(), x.values(), w, norm, residual.values_mut());
        Ok(())
    }

    fn attention(
        &mut self,
        qkv: &Buffer,
        cu_seqlens: &[u32],
        heads: usize,
        bias: Option<&Table>,
        out: &mut Buffer,
    ) -> Result<(), KernelError> {
        let (rows, cols) = qkv.shape();
        let longest = check::sequences("attention", cu_seqlens, rows)?;
        let head_dim = check::head_dim(cols, heads)?;
        if let Some(bias) = bias {
            check::bias_reach(bias.shape(), heads, longest)?;
        }
        out.reshape(rows, heads * head_dim);
        let operands = attention::Operands {
            qkv: qkv.values(),
            heads,
            head_dim,
            bias: bias.map(Table::values),
        };
        attention::attention(
            (self.precision.attention(self.path), &self.threads),
            operands,
            cu_seqlens,
            out.values_mut(),
            (&mut self.attention_tasks, &mut self.scratch),
        );
        Ok(())
    }

    fn pool(
        &mut self,
        x: &Buffer,
        cu_seqlens: &[u32],
        pooling: Pooling,
        out: &mut Buffer,
    ) -> Result<(), KernelError> {
        let (rows, cols) = x.shape();
        check::sequences("pool", cu_seqlens, rows)?;
        out.reshape(cu_seqlens.len() - 1, cols);
        // The mean of a row costs less than handing it to another thread.
        for (text, out) in cu_seqlens.windows(2).zip(out.values_mut().chunks_exact_mut(cols)) {
            let rows = &x.values()[text[0] as usize * cols..text[1] as usize * cols];
            self.path.run(Pool { rows, pooling, out });
        }
        Ok(())
    }
}

fn embedding_shapes(tables: &Embedding<Words, Table>) -> check::EmbeddingShapes {
    check::EmbeddingShapes {
        word: tables.word.shape(),
        position: tables.position.as_ref().map(Table::shape),
        kind: tables.kind.as_ref().map(Table::shape),
        gamma: tables.norm.gamma.shape(),
        beta: tables.norm.beta.shape(),
    }
}

#[cfg(test)]
mod tests;
