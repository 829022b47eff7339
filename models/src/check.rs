//! A device that packs nothing: building a model on it reads the shapes of all weights and none of their values.

use penstock_kernels::{Activation, Embedding, KernelError, Norm, Ops, Pooling, Tokens};

use crate::config::Config;
use crate::encoder::Encoder;
use crate::weights::Weights;
use crate::{ModelError, ModelSpec, heads};

/// Refuses weights from which the model of `spec` cannot be built.
pub(crate) fn check(spec: &ModelSpec, config: &Config, weights: &Weights) -> Result<(), ModelError> {
    let device = Unpacked;
    heads::load(spec, config, weights, &device)?;
    Encoder::load(config, weights, &device).map(drop)
}

/// The device. A model on it computes nothing, so every operation leaves its output as it is.
struct Unpacked;

impl Ops for Unpacked {
    const IN_FLIGHT: usize = 1;

    type Matrix = ();
    type Table = ();
    type Words = ();
    type Buffer = ();

    fn matrix(
        &self,
        _weight: &[f32],
        _bias: Option<&[f32]>,
        _out: usize,
        _inp: usize,
    ) -> Result<(), KernelError> {
        Ok(())
    }

    fn table(&self, _values: &[f32], _rows: usize, _cols: usize) -> Result<(), KernelError> {
        Ok(())
    }

    fn words(&self, _values: &[f32], _rows: usize, _cols: usize) -> Result<(), KernelError> {
        Ok(())
    }

    fn buffer(&self) {}

    fn shape(&self, (): &()) -> (usize, usize) {
        (0, 0)
    }

    fn write(&mut self, _values: &[f32], _rows: usize, _cols: usize, (): &mut ()) -> Result<(), KernelError> {
        Ok(())
    }

    fn send(&mut self, (): &()) -> Result<(), KernelError> {
        Ok(())
    }

    fn receive(&mut self, out: &mut Vec<f32>) -> Result<(), KernelError> {
        out.clear();
        Ok(())
    }

    fn embed(
        &mut self,
        _tokens: Tokens<'_>,
        _tables: &Embedding<(), ()>,
        (): &mut (),
    ) -> Result<(), KernelError> {
        Ok(())
    }

    fn linear(&mut self, (): &(), (): &(), _activation: Activation, (): &mut ()) -> Result<(), KernelError> {
        Ok(())
    }

    fn linear_add_norm(
        &mut self,
        (): &(),
        (): &(),
        _norm: &Norm<()>,
        (): &mut (),
    ) -> Result<(), KernelError> {
        Ok(())
    }

    fn attention(
        &mut self,
        (): &(),
        _cu_seqlens: &[u32],
        _heads: usize,
        _bias: Option<&()>,
        (): &mut (),
    ) -> Result<(), KernelError> {
        Ok(())
    }

    fn pool(
        &mut self,
        (): &(),
        _cu_seqlens: &[u32],
        _pooling: Pooling,
        (): &mut (),
    ) -> Result<(), KernelError> {
        Ok(())
    }
}
