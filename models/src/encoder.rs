//! A packed transformer encoder: token ids to one hidden state a token, without any padding.

mod embeddings;
mod layer;
mod parts;

use std::sync::Arc;

use penstock_core::PackedTokens;
use penstock_kernels::{KernelError, Ops, Pooling};

use crate::ModelError;
use crate::config::Config;
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
    /// One for the whole batch, or one for each of its parts.
    rooms: Vec<Room<O>>,
    /// The rows of all parts, in the order of the batch.
    joined: O::Buffer,
    rows: Vec<f32>,
}

/// What all parts of a batch go through.
struct Stack<O: Ops> {
    embeddings: Embeddings<O>,
    layers: Vec<Layer<O>>,
    relative_bias: Option<O::Table>,
    heads: usize,
}

/// What one part of a batch is computed in.
struct Room<O: Ops> {
    positions: Vec<u32>,
    hidden: O::Buffer,
    pooled: O::Buffer,
    scratch: Scratch<O>,
}

impl<O: Ops> Encoder<O> {
    /// Reads and packs the encoder that `config` describes.
    pub fn load(config: &Config, weights: &Weights, ops: &O) -> Result<Encoder<O>, ModelError> {
        let stack = Stack {
            // First: the word table is the largest tensor, mapped and packed while little else is in memory.
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
            rooms: vec![Room::new(ops)],
            joined: ops.buffer(),
            rows: Vec::new(),
        }
    }

    /// The same layers with buffers of their own.
    pub fn twin(&self, ops: &O) -> Encoder<O> {
        Encoder::with(Arc::clone(&self.stack), self.hidden, ops)
    }

    /// One row for each text of `batch`, which has been checked against the window and the vocabulary.
    pub fn pooled(
        &mut self,
        ops: &mut O,
        batch: &PackedTokens,
        pooling: Pooling,
    ) -> Result<&O::Buffer, KernelError> {
        let parts = cut(batch, ops.seats(), self.hidden);
        if parts.is_empty() {
            self.stack.run(ops, batch, pooling, &mut self.rooms[0])?;
            return Ok(&self.rooms[0].pooled);
        }
        while self.rooms.len() < parts.len() {
            self.rooms.push(Room::new(ops));
        }
        let stack = &self.stack;
        let mut work: Vec<_> = parts.iter().zip(&mut self.rooms).collect();
        ops.side_by_side(&mut work, |ops, (part, room)| {
            stack.run(ops, &part.tokens, pooling, room)
        })?;
        self.join(ops, &parts, batch.sequences())
    }

    /// Puts the rows of all parts where their texts stand in the batch.
    fn join(&mut self, ops: &mut O, parts: &[Part], texts: usize) -> Result<&O::Buffer, KernelError> {
        let width = self.hidden;
        let mut joined = vec![0.0; texts * width];
        for (part, room) in parts.iter().zip(&self.rooms) {
            ops.send(&room.pooled)?;
            ops.receive(&mut self.rows)?;
            for (&text, row) in part.texts.iter().zip(self.rows.chunks_exact(width)) {
                joined[text * width..(text + 1) * width].copy_from_slice(row);
            }
        }
        ops.write(&joined, texts, width, &mut self.joined)?;
        Ok(&self.joined)
    }
}

impl<O: Ops> Room<O> {
    fn new(ops: &O) -> Room<O> {
        Room {
            positions: Vec::new(),
            hidden: ops.buffer(),
            pooled: ops.buffer(),
            scratch: Scratch::new(ops),
        }
    }
}

impl<O: Ops> Stack<O> {
    /// Leaves one row for each text of `batch` in `room.pooled`.
    fn run(
        &self,
        ops: &mut O,
        batch: &PackedTokens,
        pooling: Pooling,
        room: &mut Room<O>,
    ) -> Result<(), KernelError> {
        let Room {
            positions,
            hidden,
            pooled,
            scratch,
        } = room;
        let (relative_bias, ends) = (self.relative_bias.as_ref(), &batch.cu_seqlens);
        self.embeddings.forward(ops, batch, positions, hidden)?;
        let last = self.layers.len() - 1;
        for (i, layer) in self.layers.iter().enumerate() {
            layer.attend(ops, ends, self.heads, relative_bias, hidden, scratch)?;
            if i == last && pooling == Pooling::Cls {
                // Behind the last attention no token looks at another, so only the first of each text
                // goes on: most of the last layer's work is saved.
                scratch.keep_first(ops, ends)?;
                ops.pool(hidden, ends, Pooling::Cls, pooled)?;
                return layer.finish(ops, Kept::First, pooled, scratch);
            }
            layer.finish(ops, Kept::All, hidden, scratch)?;
        }
        ops.pool(hidden, ends, pooling, pooled)
    }
}
