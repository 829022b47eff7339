//! A packed transformer encoder: token ids to one hidden state a token, without any padding.

mod embeddings;
mod layer;

use penstock_core::PackedTokens;
use penstock_kernels::{KernelError, Ops, Pooling};

use crate::ModelError;
use crate::config::Config;
use crate::weights::Weights;

use embeddings::Embeddings;
pub(crate) use layer::linear;
use layer::{Layer, Scratch};

/// The weights of an encoder on one device, and the buffers that its forward pass reuses.
pub(crate) struct Encoder<O: Ops> {
    embeddings: Embeddings<O>,
    layers: Vec<Layer<O>>,
    relative_bias: Option<O::Table>,
    heads: usize,
    hidden: O::Buffer,
    pooled: O::Buffer,
    scratch: Scratch<O>,
}

impl<O: Ops> Encoder<O> {
    /// Reads and packs the encoder that `config` describes.
    pub fn load(config: &Config, weights: &Weights, ops: &O) -> Result<Encoder<O>, ModelError> {
        let layers = (0..config.layers)
            .map(|i| Layer::load(config, weights, ops, i))
            .collect::<Result<_, _>>()?;
        Ok(Encoder {
            embeddings: Embeddings::load(config, weights, ops)?,
            layers,
            relative_bias: embeddings::relative_bias(config, weights, ops)?,
            heads: config.heads,
            hidden: ops.buffer(),
            pooled: ops.buffer(),
            scratch: Scratch::new(ops),
        })
    }

    /// One row for each text of `batch`, which has been checked against the window and the vocabulary.
    pub fn pooled(
        &mut self,
        ops: &mut O,
        batch: &PackedTokens,
        pooling: Pooling,
    ) -> Result<&O::Buffer, KernelError> {
        let Encoder {
            embeddings,
            layers,
            relative_bias,
            heads,
            hidden,
            pooled,
            scratch,
        } = self;
        embeddings.forward(ops, batch, hidden)?;
        let last = layers.len() - 1;
        for (i, layer) in layers.iter().enumerate() {
            layer.attend(
                ops,
                &batch.cu_seqlens,
                *heads,
                relative_bias.as_ref(),
                hidden,
                scratch,
            )?;
            if i == last && pooling == Pooling::Cls {
                // Behind the last attention no token looks at another, so only the first of each text
                // goes on: most of the last layer's work is saved.
                scratch.keep_first(ops, &batch.cu_seqlens)?;
                ops.pool(hidden, &batch.cu_seqlens, Pooling::Cls, pooled)?;
                layer.finish(ops, pooled, scratch)?;
                return Ok(pooled);
            }
            layer.finish(ops, hidden, scratch)?;
        }
        ops.pool(hidden, &batch.cu_seqlens, pooling, pooled)?;
        Ok(pooled)
    }
}
