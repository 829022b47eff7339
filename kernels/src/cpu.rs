//! The operations on the processor.

use std::sync::Arc;

use crate::check;
use crate::ops::{Activation, Embedding, KernelError, Norm, Ops, Pooling, Tokens};
use crate::reference;

/// The processor as a device: a number of threads of its own.
pub struct Cpu {
    threads: usize,
}

/// Weights as the processor reads them.
pub struct Matrix {
    weight: Vec<f32>,
    bias: Option<Vec<f32>>,
    out: usize,
    inp: usize,
}

/// Read-only rows, shared by all clones.
#[derive(Clone)]
pub struct Table {
    values: Arc<[f32]>,
    rows: usize,
    cols: usize,
}

/// Activations in memory that only grows.
#[derive(Default)]
pub struct Buffer {
    values: Vec<f32>,
    rows: usize,
    cols: usize,
}

impl Buffer {
    fn shape(&self) -> (usize, usize) {
        (self.rows, self.cols)
    }

    fn set(&mut self, values: Vec<f32>, cols: usize) {
        self.rows = values.len() / cols;
        self.cols = cols;
        self.values = values;
    }
}

impl Cpu {
    /// A processor that computes with `threads` threads.
    pub fn new(threads: usize) -> Result<Self, KernelError> {
        if threads == 0 {
            return Err(KernelError::Threads {
                threads,
                reason: "at least one is needed".into(),
            });
        }
        Ok(Self { threads })
    }

    /// Threads that compute.
    pub fn threads(&self) -> usize {
        self.threads
    }
}

impl Ops for Cpu {
    type Matrix = Matrix;
    type Table = Table;
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
        Ok(Matrix {
            weight: weight.to_vec(),
            bias: bias.map(<[f32]>::to_vec),
            out,
            inp,
        })
    }

    fn table(&self, values: &[f32], rows: usize, cols: usize) -> Result<Table, KernelError> {
        check::filled("table", "values", values, (rows, cols))?;
        Ok(Table {
            values: values.into(),
            rows,
            cols,
        })
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
        out.set(values.to_vec(), cols);
        Ok(())
    }

    fn read(&mut self, x: &Buffer, out: &mut Vec<f32>) -> Result<(), KernelError> {
        check::not_empty("read", "x", x.shape())?;
        out.clear();
        out.extend_from_slice(&x.values);
        Ok(())
    }

    fn enter<R: Send>(&mut self, work: impl FnOnce(&mut Self) -> R + Send) -> R {
        work(self)
    }

    fn embed(
        &mut self,
        tokens: Tokens<'_>,
        tables: &Embedding<Table>,
        out: &mut Buffer,
    ) -> Result<(), KernelError> {
        const KERNEL: &str = "embed";
        let cols = tables.word.cols;
        if tokens.ids.is_empty() {
            return Err(KernelError::Empty {
                kernel: KERNEL,
                operand: "ids",
            });
        }
        check::indices(KERNEL, "token id", tokens.ids, tables.word.rows)?;
        if let Some(position) = &tables.position {
            check::length(KERNEL, "positions", tokens.positions.len(), tokens.ids.len())?;
            check::indices(KERNEL, "position", tokens.positions, position.rows)?;
            check::shape(
                KERNEL,
                "position table",
                (position.rows, position.cols),
                (position.rows, cols),
            )?;
        }
        if let Some(kind) = &tables.kind {
            if !tokens.kinds.is_empty() {
                check::length(KERNEL, "token types", tokens.kinds.len(), tokens.ids.len())?;
            }
            check::indices(KERNEL, "token type", tokens.kinds, kind.rows)?;
            check::shape(
                KERNEL,
                "token type table",
                (kind.rows, kind.cols),
                (kind.rows, cols),
            )?;
        }
        norm_fits(KERNEL, &tables.norm, cols)?;
        let mut sums = reference::embed(
            (tokens.ids, &tables.word.values),
            (
                tokens.positions,
                tables.position.as_ref().map_or(&[], |table| &table.values),
            ),
            (
                tokens.kinds,
                tables.kind.as_ref().map_or(&[], |table| &table.values),
            ),
            cols,
        );
        let norm = &tables.norm;
        reference::layer_norm(&mut sums, &norm.gamma.values, &norm.beta.values, norm.eps);
        out.set(sums, cols);
        Ok(())
    }

    fn linear(
        &mut self,
        x: &Buffer,
        w: &Matrix,
        activation: Activation,
        out: &mut Buffer,
    ) -> Result<(), KernelError> {
        check::not_empty("linear", "x", x.shape())?;
        check::shape("linear", "x", x.shape(), (x.rows, w.inp))?;
        let y = reference::linear(&x.values, &w.weight, w.bias.as_deref(), w.inp, activation);
        out.set(y, w.out);
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
        check::not_empty(KERNEL, "x", x.shape())?;
        check::shape(KERNEL, "x", x.shape(), (x.rows, w.inp))?;
        check::shape(KERNEL, "residual", residual.shape(), (x.rows, w.out))?;
        norm_fits(KERNEL, norm, w.out)?;
        let mut sum = reference::linear(&x.values, &w.weight, w.bias.as_deref(), w.inp, Activation::None);
        for (sum, value) in sum.iter_mut().zip(&residual.values) {
            *sum += value;
        }
        reference::layer_norm(&mut sum, &norm.gamma.values, &norm.beta.values, norm.eps);
        residual.set(sum, w.out);
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
        let longest = check::sequences("attention", cu_seqlens, qkv.rows)?;
        let head_dim = check::head_dim(qkv.cols, heads)?;
        if let Some(bias) = bias {
            check::bias_reach((bias.rows, bias.cols), heads, longest)?;
        }
        let bias = bias.map(|bias| &*bias.values);
        let rows = reference::attention(&qkv.values, cu_seqlens, heads, head_dim, bias);
        out.set(rows, heads * head_dim);
        Ok(())
    }

    fn pool(
        &mut self,
        x: &Buffer,
        cu_seqlens: &[u32],
        pooling: Pooling,
        out: &mut Buffer,
    ) -> Result<(), KernelError> {
        check::sequences("pool", cu_seqlens, x.rows)?;
        out.set(reference::pool(&x.values, cu_seqlens, x.cols, pooling), x.cols);
        Ok(())
    }
}

fn norm_fits(kernel: &'static str, norm: &Norm<Table>, cols: usize) -> Result<(), KernelError> {
    check::shape(kernel, "gamma", (norm.gamma.rows, norm.gamma.cols), (1, cols))?;
    check::shape(kernel, "beta", (norm.beta.rows, norm.beta.cols), (1, cols))
}
