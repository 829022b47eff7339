//! Embedding: the pooled hidden states themselves, which a caller may normalise.

use penstock_core::{Rejection, Reply};
use penstock_kernels::{KernelError, Ops, Pooling};

use super::Head;
use super::output::{Description, Form, Output, Value, other_task};
use crate::ModelSpec;

/// The task of a bare encoder.
pub(super) static DESCRIPTION: Description = Description {
    name: "embedding",
    architectures: &["Model", "ForMaskedLM", "ForPreTraining"],
    outputs: &[Output {
        name: "embedding",
        form: Form::Vector,
        is_default: true,
        read: |spec, reply| embedded(spec, reply).map(Value::Vector),
    }],
};

/// The reply of an embedding model, not yet shaped.
pub fn embedded<'a>(spec: &ModelSpec, reply: &'a Reply) -> Result<&'a [f32], Rejection> {
    let Reply::Embedding(vector) = reply else {
        return Err(other_task(spec));
    };
    Ok(vector)
}

/// A head without weights.
pub(super) struct Embedding {
    pooling: Pooling,
}

impl Embedding {
    pub(super) fn new(spec: &ModelSpec) -> Embedding {
        Embedding {
            pooling: spec.pooling.unwrap_or(Pooling::Mean),
        }
    }
}

impl<O: Ops + 'static> Head<O> for Embedding {
    fn pooling(&self) -> Pooling {
        self.pooling
    }

    fn forward<'a>(&'a mut self, _ops: &mut O, pooled: &'a O::Buffer) -> Result<&'a O::Buffer, KernelError> {
        Ok(pooled)
    }

    fn reply(&self, row: &[f32]) -> Reply {
        Reply::Embedding(row.to_vec())
    }

    fn replica(&self, _ops: &O) -> Box<dyn Head<O>> {
        Box::new(Embedding {
            pooling: self.pooling,
        })
    }
}

/// Scales `vector` to length one, as sentence-transformers' Normalize module does. A zero vector stays zero.
pub fn normalize(vector: &mut [f32]) {
    let length = vector
        .iter()
        .map(|v| f64::from(*v) * f64::from(*v))
        .sum::<f64>()
        .sqrt();
    // `max` would turn NaN into a number.
    let scale = 1.0 / if length < 1e-12 { 1e-12 } else { length };
    for v in vector {
        *v = (f64::from(*v) * scale) as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::normalize;

    #[test]
    fn a_vector_gets_length_one_and_keeps_its_direction() {
        let mut v = [3.0, -4.0];
        normalize(&mut v);
        assert!((v[0] - 0.6).abs() < 1e-7 && (v[1] + 0.8).abs() < 1e-7, "{v:?}");
    }

    #[test]
    fn a_zero_vector_stays_zero_and_nan_stays_visible() {
        let mut zero = [0.0; 3];
        normalize(&mut zero);
        assert!(zero.iter().all(|v| *v == 0.0), "{zero:?}");
        let mut broken = [f32::NAN, 1.0];
        normalize(&mut broken);
        assert!(broken.iter().all(|v| !v.is_finite()));
    }
}
