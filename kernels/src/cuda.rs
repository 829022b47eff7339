//! The operations on a GPU: shapes checked here, once, then one launch or product for each.
//!
//! Every kernel is one file three times: `cu/X.cu` on the device, `cuda/X.rs` that plans its launch, and
//! `cpu/X.rs`, the same on the processor. The device itself is behind [`driver::Driver`].

mod activation;
mod attention;
mod bucket;
pub mod driver;
mod embedding;
mod graphs;
mod layer_norm;
mod linear;
mod memory;
pub mod nvidia;
mod pool;
mod small;

use std::collections::VecDeque;

pub use driver::Dtype;
pub use memory::{DeviceBuffer, DeviceMatrix, DeviceTable};
pub use nvidia::{Nvidia, Unavailable};

use crate::check;
use crate::ops::{Activation, Embedding, KernelError, Norm, Ops, Pooling, Priority, Tokens};
use attention::{Sequences, check_head_dim};
use driver::Driver;
use layer_norm::check_cols;
use memory::{Inboxes, Rows};
use small::{Listed, Small};

/// A GPU behind `D`, with its state from batch to batch.
pub struct Cuda<D: Driver> {
    dtype: Dtype,
    /// Token ids, positions and types.
    tokens: Inboxes<D>,
    /// `cu_seqlens` and the tiles of attention.
    cuts: Inboxes<D>,
    sequences: Sequences,
    /// Product that [`Ops::linear_add_norm`] adds to its residual.
    product: DeviceBuffer<D>,
    sent: VecDeque<Sent<D>>,
    spare: Vec<Outbox<D>>,
    /// State of small batches, where they are recorded as graphs.
    small: Option<Small<D>>,
    /// The one that is listed.
    listed: Option<Listed>,
    /// Dropped last: graphs are of its kernels.
    driver: D,
}

struct Outbox<D: Driver> {
    outbox: D::Outbox,
    capacity: usize,
}

/// Values on their way to the host.
struct Sent<D: Driver> {
    outbox: Outbox<D>,
    cols: usize,
    stride: usize,
}

impl<D: Driver> Cuda<D> {
    /// Operations in `dtype` on `driver`.
    pub fn new(driver: D, dtype: Dtype) -> Self {
        Self {
            dtype,
            tokens: Inboxes::new(),
            cuts: Inboxes::new(),
            sequences: Sequences::default(),
            product: DeviceBuffer::default(),
            sent: VecDeque::new(),
            spare: Vec::new(),
            small: None,
            listed: None,
            driver,
        }
    }

    /// The same with the launches of small batches recorded as graphs.
    #[must_use]
    pub fn recording(mut self) -> Self {
        self.small = Some(Small::new());
        self
    }

    /// Graphs that were recorded and are kept.
    pub fn graphs(&self) -> usize {
        self.small.as_ref().map_or(0, |small| small.graphs.count())
    }

    /// Sets the shape of `out`. Its values are unspecified afterwards; memory is kept, never given back.
    fn fit(&mut self, out: &mut DeviceBuffer<D>, rows: Rows, cols: usize) -> Result<(), KernelError> {
        if let Some(bytes) = out.lacks(self.dtype, rows, cols) {
            // Listed work may use the memory that is freed here.
            self.start_early()?;
            out.grow(&self.driver, bytes)?;
        }
        out.shape_as(rows, cols);
        Ok(())
    }
}

impl<D: Driver> Ops for Cuda<D> {
    /// One computes, the next is prepared and copied meanwhile.
    const IN_FLIGHT: usize = 2;

    type Matrix = DeviceMatrix<D>;
    type Table = DeviceTable<D>;
    type Words = DeviceTable<D>;
    type Buffer = DeviceBuffer<D>;

    fn matrix(
        &self,
        weight: &[f32],
        bias: Option<&[f32]>,
        out: usize,
        inp: usize,
    ) -> Result<DeviceMatrix<D>, KernelError> {
        check::filled("matrix", "weight", weight, (out, inp))?;
        if let Some(bias) = bias {
            check::length("matrix", "bias", bias.len(), out)?;
        }
        DeviceMatrix::new(&self.driver, self.dtype, weight, bias, (out, inp))
    }

    fn table(&self, values: &[f32], rows: usize, cols: usize) -> Result<DeviceTable<D>, KernelError> {
        check::filled("table", "values", values, (rows, cols))?;
        DeviceTable::new(&self.driver, values, rows, cols)
    }

    fn words(&self, values: &[f32], rows: usize, cols: usize) -> Result<DeviceTable<D>, KernelError> {
        self.table(values, rows, cols)
    }

    fn buffer(&self) -> DeviceBuffer<D> {
        DeviceBuffer::default()
    }

    fn shape(&self, buffer: &DeviceBuffer<D>) -> (usize, usize) {
        buffer.shape()
    }

    fn write(
        &mut self,
        values: &[f32],
        rows: usize,
        cols: usize,
        out: &mut DeviceBuffer<D>,
    ) -> Result<(), KernelError> {
        check::filled("write", "values", values, (rows, cols))?;
        // Values are stored at once, before work that is only listed.
        self.start_early()?;
        self.fit(out, rows.into(), cols)?;
        let mut bytes = Vec::new();
        for row in values.chunks_exact(cols) {
            self.dtype.encode(row, &mut bytes);
            let whole = bytes.len() + (out.stride() - cols) * self.dtype.bytes();
            bytes.resize(whole, 0);
        }
        match out.memory() {
            Some(memory) => self.driver.store(memory, &bytes),
            None => Ok(()),
        }
    }

    fn send(&mut self, x: &DeviceBuffer<D>) -> Result<(), KernelError> {
        check::not_empty("send", "x", x.shape())?;
        self.start()?;
        let (rows, cols) = x.shape();
        let bytes = rows * x.stride() * self.dtype.bytes();
        let large_enough = self.spare.iter().position(|spare| spare.capacity >= bytes);
        let mut outbox = if let Some(place) = large_enough {
            self.spare.swap_remove(place)
        } else {
            // One that is too small makes room: there are never more than batches on their way.
            self.spare.pop();
            let capacity = bytes.next_power_of_two();
            Outbox {
                outbox: self.driver.outbox(capacity)?,
                capacity,
            }
        };
        if let Some(memory) = x.memory() {
            self.driver.fetch(memory, bytes, &mut outbox.outbox)?;
        }
        self.sent.push_back(Sent {
            outbox,
            cols,
            stride: x.stride(),
        });
        Ok(())
    }

    fn receive(&mut self, out: &mut Vec<f32>) -> Result<(), KernelError> {
        out.clear();
        let Some(mut sent) = self.sent.pop_front() else {
            return Ok(());
        };
        let bytes = self.driver.wait(&mut sent.outbox.outbox)?;
        let row = sent.stride * self.dtype.bytes();
        for row in bytes.chunks_exact(row) {
            self.dtype.decode(&row[..sent.cols * self.dtype.bytes()], out);
        }
        self.spare.push(sent.outbox);
        Ok(())
    }

    fn is_ready(&self) -> bool {
        let has_arrived = |sent: &Sent<D>| self.driver.has_arrived(&sent.outbox.outbox);
        self.sent.front().is_none_or(has_arrived)
    }

    fn forward(
        &mut self,
        cu_seqlens: &[u32],
        _: Priority,
        work: impl FnOnce(&mut Self) -> Result<(), KernelError> + Send,
    ) -> Result<(), KernelError> {
        self.listed = self.list(cu_seqlens)?;
        let done = work(self).and_then(|()| self.start());
        // After an error none of it is to be started.
        self.listed = None;
        done
    }

    fn embed(
        &mut self,
        tokens: Tokens<'_>,
        tables: &Embedding<DeviceTable<D>, DeviceTable<D>>,
        out: &mut DeviceBuffer<D>,
    ) -> Result<(), KernelError> {
        let (_, cols) = tables.word.shape();
        let shapes = check::EmbeddingShapes {
            word: tables.word.shape(),
            position: tables.position.as_ref().map(DeviceTable::shape),
            kind: tables.kind.as_ref().map(DeviceTable::shape),
            gamma: tables.norm.gamma.shape(),
            beta: tables.norm.beta.shape(),
        };
        check::tokens(tokens, &shapes)?;
        check_cols("embed", cols)?;
        let count = tokens.ids.len();
        let mut rows = Rows::from(count);
        match &self.listed {
            Some(listed) if listed.is_for(tokens) => rows.span = listed.bucket.tokens,
            _ => self.start_early()?,
        }
        self.fit(out, rows, cols)?;
        self.launch_embedding(tokens, tables, out)
    }

    fn linear(
        &mut self,
        x: &DeviceBuffer<D>,
        w: &DeviceMatrix<D>,
        activation: Activation,
        out: &mut DeviceBuffer<D>,
    ) -> Result<(), KernelError> {
        let (rows, _) = x.shape();
        check::not_empty("linear", "x", x.shape())?;
        check::shape("linear", "x", x.shape(), (rows, w.inp()))?;
        self.fit(out, x.rows(), w.out())?;
        self.multiply(x, w, activation, out)
    }

    fn linear_add_norm(
        &mut self,
        x: &DeviceBuffer<D>,
        w: &DeviceMatrix<D>,
        norm: &Norm<DeviceTable<D>>,
        residual: &mut DeviceBuffer<D>,
    ) -> Result<(), KernelError> {
        const KERNEL: &str = "linear_add_norm";
        let (rows, _) = x.shape();
        check::not_empty(KERNEL, "x", x.shape())?;
        check::shape(KERNEL, "x", x.shape(), (rows, w.inp()))?;
        check::shape(KERNEL, "residual", residual.shape(), (rows, w.out()))?;
        check::norm(KERNEL, (norm.gamma.shape(), norm.beta.shape()), w.out())?;
        check_cols(KERNEL, w.out())?;
        let mut product = std::mem::take(&mut self.product);
        let done = self
            .fit(&mut product, x.rows(), w.out())
            .and_then(|()| self.multiply(x, w, Activation::None, &product))
            .and_then(|()| self.launch_layer_norm(&product, norm, residual));
        self.product = product;
        done
    }

    fn attention(
        &mut self,
        qkv: &DeviceBuffer<D>,
        cu_seqlens: &[u32],
        heads: usize,
        bias: Option<&DeviceTable<D>>,
        out: &mut DeviceBuffer<D>,
    ) -> Result<(), KernelError> {
        let (rows, cols) = qkv.shape();
        let longest = check::sequences("attention", cu_seqlens, rows)?;
        let head_dim = check::head_dim(cols, heads)?;
        check_head_dim(head_dim)?;
        let bias = match bias {
            Some(bias) => Some((bias, check::bias_reach(bias.shape(), heads, longest)?)),
            None => None,
        };
        self.fit(out, qkv.rows(), heads * head_dim)?;
        self.sequences(cu_seqlens)?;
        self.launch_attention(qkv, (heads, head_dim), bias, out)
    }

    fn pool(
        &mut self,
        x: &DeviceBuffer<D>,
        cu_seqlens: &[u32],
        pooling: Pooling,
        out: &mut DeviceBuffer<D>,
    ) -> Result<(), KernelError> {
        let (rows, cols) = x.shape();
        check::sequences("pool", cu_seqlens, rows)?;
        check_cols("pool", cols)?;
        self.sequences(cu_seqlens)?;
        self.fit(out, self.text_rows(cu_seqlens.len() - 1), cols)?;
        self.launch_pool(x, self.sequences.address(), pooling, out)
    }
}
