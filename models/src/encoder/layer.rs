//! One layer: attention over each text, then the feed-forward block, each with its residual and norm.

use penstock_kernels::{Activation, KernelError, Norm, Ops, Pooling};

use super::embeddings::norm;
use crate::ModelError;
use crate::config::Config;
use crate::weights::{Values, Weights};

pub(super) struct Layer<O: Ops> {
    /// Query, key and value in one matrix, so that one product makes all three.
    qkv: O::Matrix,
    attention_out: O::Matrix,
    attention_norm: Norm<O::Table>,
    up: O::Matrix,
    activation: Activation,
    down: O::Matrix,
    output_norm: Norm<O::Table>,
}

/// Buffers of a layer; the next layer overwrites them.
pub(super) struct Scratch<O: Ops> {
    qkv: O::Buffer,
    attended: O::Buffer,
    /// The first row of each text in `attended`, where only these are kept. It is a buffer of its own, because a
    /// device that records its launches must find each buffer at its place.
    first: O::Buffer,
    wide: O::Buffer,
}

/// Rows that a layer keeps after its attention.
#[derive(Clone, Copy)]
pub(super) enum Kept {
    All,
    First,
}

impl<O: Ops> Scratch<O> {
    pub(super) fn new(ops: &O) -> Scratch<O> {
        Scratch {
            qkv: ops.buffer(),
            attended: ops.buffer(),
            first: ops.buffer(),
            wide: ops.buffer(),
        }
    }

    /// Copies the row of the first token of each text.
    pub(super) fn keep_first(&mut self, ops: &mut O, cu_seqlens: &[u32]) -> Result<(), KernelError> {
        ops.pool(&self.attended, cu_seqlens, Pooling::Cls, &mut self.first)
    }
}

impl<O: Ops> Layer<O> {
    pub(super) fn load(
        config: &Config,
        weights: &Weights,
        ops: &O,
        number: usize,
    ) -> Result<Layer<O>, ModelError> {
        let names = config.family.names();
        let name = |part: &str| format!("{}{number}.{part}", names.layer);
        let matrix = |part: &str, out: usize, inp: usize| -> Result<O::Matrix, ModelError> {
            let (weight, bias) = linear(weights, &weights.encoder(&name(part)), out, inp)?;
            Ok(ops.matrix(&weight, Some(&bias), out, inp)?)
        };
        let (hidden, wide) = (config.hidden, config.intermediate);
        let (mut weight, mut bias) = (
            Vec::with_capacity(3 * hidden * hidden),
            Vec::with_capacity(3 * hidden),
        );
        for part in names.qkv {
            let (w, b) = linear(weights, &weights.encoder(&name(part)), hidden, hidden)?;
            weight.extend_from_slice(&w);
            bias.extend_from_slice(&b);
        }
        Ok(Layer {
            qkv: ops.matrix(&weight, Some(&bias), 3 * hidden, hidden)?,
            attention_out: matrix(names.attention_out, hidden, hidden)?,
            attention_norm: norm(config, weights, ops, &name(names.attention_norm))?,
            up: matrix(names.up, wide, hidden)?,
            activation: config.activation,
            down: matrix(names.down, hidden, wide)?,
            output_norm: norm(config, weights, ops, &name(names.output_norm))?,
        })
    }

    /// Attention of every token over the tokens of its text.
    pub(super) fn attend(
        &self,
        ops: &mut O,
        cu_seqlens: &[u32],
        heads: usize,
        relative_bias: Option<&O::Table>,
        hidden: &O::Buffer,
        scratch: &mut Scratch<O>,
    ) -> Result<(), KernelError> {
        ops.linear(hidden, &self.qkv, Activation::None, &mut scratch.qkv)?;
        ops.attention(
            &scratch.qkv,
            cu_seqlens,
            heads,
            relative_bias,
            &mut scratch.attended,
        )
    }

    /// The rest of the layer after attention, for each row of `hidden` on its own; `kept` says which rows.
    pub(super) fn finish(
        &self,
        ops: &mut O,
        kept: Kept,
        hidden: &mut O::Buffer,
        scratch: &mut Scratch<O>,
    ) -> Result<(), KernelError> {
        let attended = match kept {
            Kept::All => &scratch.attended,
            Kept::First => &scratch.first,
        };
        ops.linear_add_norm(attended, &self.attention_out, &self.attention_norm, hidden)?;
        ops.linear(hidden, &self.up, self.activation, &mut scratch.wide)?;
        ops.linear_add_norm(&scratch.wide, &self.down, &self.output_norm, hidden)
    }
}

/// Weight `[out, inp]` and bias of the linear layer whose full name is `name`.
pub(crate) fn linear(
    weights: &Weights,
    name: &str,
    out: usize,
    inp: usize,
) -> Result<(Values, Values), ModelError> {
    let weight = weights.read(&format!("{name}.weight"), &[out, inp])?;
    Ok((weight, weights.read(&format!("{name}.bias"), &[out])?))
}
