//! Embedding: the pooled hidden states themselves, which a caller may normalise.

use penstock_core::Reply;
use penstock_kernels::{KernelError, Ops, Pooling};

use super::{Head, Rows};
use crate::ModelSpec;

/// Endings of `architectures` of a bare encoder.
pub(super) const ARCHITECTURES: &[&str] = &["Model", "ForMaskedLM", "ForPreTraining"];

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
    fn rows(&self) -> Rows {
        Rows::Pooled(self.pooling)
    }

    fn forward<'a>(&'a mut self, _ops: &mut O, hidden: &'a O::Buffer) -> Result<&'a O::Buffer, KernelError> {
        Ok(hidden)
    }

    fn reply(&self, results: &[f32]) -> Reply {
        Reply::Embedding(results.to_vec())
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
