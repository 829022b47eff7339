//! A packed transformer encoder: token ids to one hidden state a token, without any padding.

mod embeddings;
mod layer;
mod parts;

use std::sync::Arc;

use penstock_core::PackedTokens;
use penstock_kernels::{KernelError, Ops, Pooling};

use crate::ModelError;
use crate::config::Config;
use crate::heads::Rows;
use crate::weights::Weights;

use embeddings::Embeddings;
pub(crate) use layer::linear;
use layer::{Kept, Layer, Scratch};
use parts::{Part, cut};

/// An encoder on one device, and the memory that its forward pass reuses.
pub(crate) struct Encoder<O: Ops> {
    /// Shared by all executors of a device.
    stack: Arc<Stack<O>>,
    hidden: usize,
    /// One workspace for the whole batch, or one for each of its parts.
    workspaces: Vec<Workspace<O>>,
    /// The rows of all parts, in the order of the batch.
    joined: O::Buffer,
    rows: Vec<f32>,
}

/// Weights, which all parts of a batch share.
struct Stack<O: Ops> {
    embeddings: Embeddings<O>,
    layers: Vec<Layer<O>>,
    relative_bias: Option<O::Table>,
    heads: usize,
}

/// Buffers in which one part of a batch is computed.
struct Workspace<O: Ops> {
    positions: Vec<u32>,
    hidden: O::Buffer,
    pooled: O::Buffer,
    scratch: Scratch<O>,
}

impl<O: Ops> Encoder<O> {
    /// Reads and packs the encoder that `config` describes.
    pub fn load(config: &Config, weights: &Weights, ops: &O) -> Result<Encoder<O>, ModelError> {
        let stack = Stack {
            // The word table comes first: it is the largest tensor, so little else is in memory yet.
            embeddings: Embeddings::load(config, weights, ops)?,
            layers: (0..config.layers)
                .map(|i| Layer::load(config, weights, ops, i))
                .collect::<Result<_, _>>()?,
            relative_bias: embeddings::relative_bias(config, weights, ops)?,
            heads: config.heads,
        };
        Ok(Encoder::with(Arc::new(stack), config.hidden, ops))
    }

    fn with(stack: Arc<Stack<O>>, hidden: usize, ops: &O) -> Encoder<O> {
        Encoder {
            stack,
            hidden,
            workspaces: vec![Workspace::new(ops)],
            joined: ops.buffer(),
            rows: Vec::new(),
        }
    }

    /// An encoder that shares the layers and has buffers of its own.
    pub fn replica(&self, ops: &O) -> Encoder<O> {
        Encoder::with(Arc::clone(&self.stack), self.hidden, ops)
    }

    /// The hidden states of `batch` as `rows` says. The batch must have been checked against window and vocabulary.
    pub fn forward(
        &mut self,
        ops: &mut O,
        batch: &PackedTokens,
        rows: Rows,
    ) -> Result<&O::Buffer, KernelError> {
        let parts = cut(batch, ops.seats(), self.hidden);
        if parts.is_empty() {
            self.stack.run(ops, batch, rows, &mut self.workspaces[0])?;
            return Ok(self.workspaces[0].rows(rows));
        }
        while self.workspaces.len() < parts.len() {
            self.workspaces.push(Workspace::new(ops));
        }
        let stack = &self.stack;
        let mut work: Vec<_> = parts.iter().zip(&mut self.workspaces).collect();
        ops.side_by_side(&mut work, |ops, (part, workspace)| {
            stack.run(ops, &part.tokens, rows, workspace)
        })?;
        self.join(ops, &parts, batch, rows)
    }

    /// Joins the rows of all parts in the order of the batch.
    fn join(
        &mut self,
        ops: &mut O,
        parts: &[Part],
        batch: &PackedTokens,
        rows: Rows,
    ) -> Result<&O::Buffer, KernelError> {
        let width = self.hidden;
        let span = |text: usize| match rows {
            Rows::Pooled(_) => text * width..(text + 1) * width,
            Rows::Tokens => {
                let [begin, end] = [text, text + 1].map(|text| batch.cu_seqlens[text] as usize * width);
                begin..end
            }
        };
        let mut joined = vec![0.0; span(batch.sequences() - 1).end];
        for (part, workspace) in parts.iter().zip(&self.workspaces) {
            ops.send(workspace.rows(rows))?;
            ops.receive(&mut self.rows)?;
            let mut rest = self.rows.as_slice();
            for &text in &part.texts {
                let to = &mut joined[span(text)];
                let (from, behind) = rest.split_at(to.len());
                to.copy_from_slice(from);
                rest = behind;
            }
        }
        ops.write(&joined, joined.len() / width, width, &mut self.joined)?;
        Ok(&self.joined)
    }
}

impl<O: Ops> Workspace<O> {
    fn new(ops: &O) -> Workspace<O> {
        Workspace {
            positions: Vec::new(),
            hidden: ops.buffer(),
            pooled: ops.buffer(),
            scratch: Scratch::new(ops),
        }
    }

    /// The buffer that holds the result.
    fn rows(&self, rows: Rows) -> &O::Buffer {
        match rows {
            Rows::Pooled(_) => &self.pooled,
            Rows::Tokens => &self.hidden,
        }
    }
}

impl<O: Ops> Stack<O> {
    /// Computes the hidden states of `batch`; [`Workspace::rows`] holds them.
    fn run(
        &self,
        ops: &mut O,
        batch: &PackedTokens,
        rows: Rows,
        workspace: &mut Workspace<O>,
    ) -> Result<(), KernelError> {
        let Workspace {
            positions,
            hidden,
            pooled,
            scratch,
        } = workspace;
        let (relative_bias, ends) = (self.relative_bias.as_ref(), &batch.cu_seqlens);
        self.embeddings.forward(ops, batch, positions, hidden)?;
        let last = self.layers.len() - 1;
        for (i, layer) in self.layers.iter().enumerate() {
            layer.attend(ops, ends, self.heads, relative_bias, hidden, scratch)?;
            if i == last && rows == Rows::Pooled(Pooling::Cls) {
                // After the last attention each token is computed on its own, so only the first of each text
                // is kept. This saves most of the last layer's work.
                scratch.keep_first(ops, ends)?;
                ops.pool(hidden, ends, Pooling::Cls, pooled)?;
                return layer.finish(ops, Kept::First, pooled, scratch);
            }
            layer.finish(ops, Kept::All, hidden, scratch)?;
        }
        match rows {
            Rows::Pooled(pooling) => ops.pool(hidden, ends, pooling, pooled),
            Rows::Tokens => Ok(()),
        }
    }
}
