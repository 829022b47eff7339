//! Products by libraries that only this comparison needs.

use anyhow::{Result, bail};
use ndarray::{Array2, linalg::general_mat_mul};
use rten_gemm::{GemmExecutor, GemmInputA, GemmInputB, GemmOptions};
use rten_tensor::NdTensorView;

use super::{Shape, Subject, noise, timed};

/// Prepares the library called `name`.
pub(super) fn subject(name: &str, shape: Shape) -> Result<Subject> {
    match name {
        "rten-gemm" => Ok(rten(shape)),
        "ndarray (matrixmultiply)" => ndarray(shape),
        _ => bail!("no library `{name}`"),
    }
}

fn rten(shape: Shape) -> Subject {
    let gemm = GemmExecutor::<f32, f32, f32>::new();
    let (x, weight) = (
        noise(shape.rows * shape.inputs),
        noise(shape.outputs * shape.inputs),
    );
    let transposed = NdTensorView::from_data([shape.outputs, shape.inputs], weight.as_slice());
    let packed = gemm.prepack_b(transposed.transposed());
    let mut product = vec![0.0; shape.rows * shape.outputs];
    let timed = move |budget| {
        let left = NdTensorView::from_data([shape.rows, shape.inputs], x.as_slice());
        timed(budget, || {
            let (left, right) = (GemmInputA::Unpacked(left), GemmInputB::Packed(&packed));
            let done = gemm.gemm(&mut product, left, right, GemmOptions::default());
            done.map_err(|error| anyhow::anyhow!("rten-gemm: {error}"))
        })
    };
    Subject::new(shape.operations(), timed)
}

fn ndarray(shape: Shape) -> Result<Subject> {
    let left = Array2::from_shape_vec((shape.rows, shape.inputs), noise(shape.rows * shape.inputs))?;
    let right = Array2::from_shape_vec((shape.outputs, shape.inputs), noise(shape.outputs * shape.inputs))?;
    let mut product = Array2::zeros((shape.rows, shape.outputs));
    let timed = move |budget| {
        timed(budget, || {
            general_mat_mul(1.0, &left, &right.t(), 0.0, &mut product);
            Ok(())
        })
    };
    Ok(Subject::new(shape.operations(), timed))
}
