//! Matrix products through cuBLASLt, with the algorithm chosen once for each shape bucket.

use std::collections::HashMap;
use std::sync::Arc;

use cudarc::cublaslt::result::{self, CublasError};
use cudarc::cublaslt::sys::{self, cublasLtMatmulDescAttributes_t as Attribute};

use super::card::{Card, Memory};
use crate::cuda::driver::{Dtype, Epilogue, Product};
use crate::ops::KernelError;

/// What NVIDIA recommends for Hopper; older GPUs take less and have it to spare.
const WORKSPACE_BYTES: usize = 32 << 20;

pub(super) struct Products {
    card: Arc<Card>,
    handle: sys::cublasLtHandle_t,
    workspace: Memory,
    dtype: Dtype,
    plans: HashMap<Shape, Plan>,
}

/// What a plan depends on. Buckets of rows and the matrices of a model: a few hundred at most.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Shape {
    rows: usize,
    inp: usize,
    out_cols: usize,
    epilogue: Epilogue,
}

struct Plan {
    description: sys::cublasLtMatmulDesc_t,
    weight: sys::cublasLtMatrixLayout_t,
    algorithm: sys::cublasLtMatmulAlgo_t,
}

// SAFETY: the handle and the descriptions are used by the one thread that owns this value at a time.
unsafe impl Send for Products {}

impl Products {
    pub(super) fn new(card: &Arc<Card>, dtype: Dtype) -> Result<Products, KernelError> {
        card.bind()?;
        let handle = result::create_handle().map_err(|e| card.refused("opening cuBLASLt".into(), &e.0))?;
        // From here on `drop` gives the handle back.
        let workspace = match Memory::new(card, WORKSPACE_BYTES) {
            Ok(workspace) => workspace,
            Err(error) => {
                // SAFETY: made above, used by nobody.
                let _ = unsafe { result::destroy_handle(handle) };
                return Err(error);
            }
        };
        Ok(Products {
            card: Arc::clone(card),
            handle,
            workspace,
            dtype,
            plans: HashMap::new(),
        })
    }

    /// The library counts columns first, so it is given `outᵀ = w · xᵀ`: the same bytes.
    pub(super) fn multiply(&mut self, product: &Product) -> Result<(), KernelError> {
        let mut shape = Shape {
            rows: bucket(product.rows),
            inp: product.inp,
            out_cols: product.out_cols,
            epilogue: product.epilogue,
        };
        let mut outcome = self.run(product, shape);
        if outcome.is_err() && shape.rows != product.rows {
            // An algorithm that was chosen for the bucket need not take every shape in it.
            shape.rows = product.rows;
            outcome = self.run(product, shape);
        }
        outcome.map_err(|CublasError(status)| {
            let Shape { inp, out_cols, .. } = shape;
            let (rows, epilogue) = (product.rows, product.epilogue);
            let work = format!("product of {rows} x {inp} with {inp} x {out_cols}, {epilogue:?}");
            self.card.refused_or_lost(work, &status)
        })
    }

    fn run(&mut self, product: &Product, shape: Shape) -> Result<(), CublasError> {
        if !self.plans.contains_key(&shape) {
            let plan = self.plan(shape)?;
            self.plans.insert(shape, plan);
        }
        let Some(plan) = self.plans.get(&shape) else {
            return Err(CublasError(sys::cublasStatus_t::CUBLAS_STATUS_INTERNAL_ERROR));
        };
        set(
            plan.description,
            Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER,
            &product.bias,
        )?;
        let x = Layout::new(self.dtype, product.inp, product.rows)?;
        let out = Layout::new(self.dtype, product.out_cols, product.rows)?;
        let (one, zero) = (1.0_f32, 0.0_f32);
        // SAFETY: the layouts describe dense matrices of `rows` rows, which the caller's buffers hold up to a
        // whole step of rows; weight and bias are as long as `Matrix` made them. `out` overlaps none of them.
        // The scalars are read before the call returns. The stream and the workspace live as long as `self`.
        unsafe {
            result::matmul(
                self.handle,
                plan.description,
                (&raw const one).cast(),
                (&raw const zero).cast(),
                product.weight as *const _,
                plan.weight,
                product.x as *const _,
                x.0,
                product.out as *const _,
                out.0,
                product.out as *mut _,
                out.0,
                &raw const plan.algorithm,
                self.workspace.address as *mut _,
                self.workspace.bytes,
                self.card.compute.cast(),
            )
        }
    }

    /// Asks the library how it would do a product of that shape.
    fn plan(&self, shape: Shape) -> Result<Plan, CublasError> {
        let float = sys::cudaDataType_t::CUDA_R_32F;
        let description = result::create_matmul_desc(sys::cublasComputeType_t::CUBLAS_COMPUTE_32F, float)?;
        // 1 transposes: the weights' rows are inputs.
        set(description, Attribute::CUBLASLT_MATMUL_DESC_TRANSA, &1_i32)?;
        set(description, Attribute::CUBLASLT_MATMUL_DESC_TRANSB, &0_i32)?;
        let epilogue = match shape.epilogue {
            Epilogue::Bias => sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS,
            Epilogue::BiasRelu => sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_RELU_BIAS,
            Epilogue::BiasGeluTanh => sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_GELU_BIAS,
        };
        set(description, Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue)?;
        let weight = Layout::new(self.dtype, shape.inp, shape.out_cols)?;
        let x = Layout::new(self.dtype, shape.inp, shape.rows)?;
        let out = Layout::new(self.dtype, shape.out_cols, shape.rows)?;
        let preference = Preference(result::create_matmul_pref()?);
        // SAFETY: the preference lives, and the value is of the size that the attribute has.
        unsafe {
            result::set_matmul_pref_attribute(
                preference.0,
                sys::cublasLtMatmulPreferenceAttributes_t::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                (&raw const self.workspace.bytes).cast(),
                size_of::<usize>(),
            )?;
        }
        // SAFETY: everything was made above and lives.
        let found = unsafe {
            result::get_matmul_algo_heuristic(
                self.handle,
                description,
                weight.0,
                x.0,
                out.0,
                out.0,
                preference.0,
            )?
        };
        Ok(Plan {
            description,
            weight: weight.keep(),
            algorithm: found.algo,
        })
    }
}

impl Drop for Products {
    fn drop(&mut self) {
        if self.card.bind().and_then(|()| self.card.settle()).is_err() {
            return;
        }
        for plan in self.plans.values() {
            // SAFETY: made by `plan`, destroyed once, and no product is left that uses them.
            unsafe {
                let _ = result::destroy_matmul_desc(plan.description);
                let _ = result::destroy_matrix_layout(plan.weight);
            }
        }
        // SAFETY: made by `new`, destroyed once.
        let _ = unsafe { result::destroy_handle(self.handle) };
    }
}

/// Rows up to the next of eight steps between two powers of two, so that algorithms are chosen a few hundred
/// times at most and for about the right shape.
fn bucket(rows: usize) -> usize {
    let step = (rows.next_power_of_two() / 16).max(16);
    rows.next_multiple_of(step)
}

fn set<T>(
    description: sys::cublasLtMatmulDesc_t,
    attribute: Attribute,
    value: &T,
) -> Result<(), CublasError> {
    // SAFETY: the description lives, and the callers give each attribute a value of its own type.
    unsafe {
        result::set_matmul_desc_attribute(
            description,
            attribute,
            std::ptr::from_ref(value).cast(),
            size_of::<T>(),
        )
    }
}

/// A dense matrix of `rows` by `cols`, columns first, without a place.
struct Layout(sys::cublasLtMatrixLayout_t);

impl Layout {
    fn new(dtype: Dtype, rows: usize, cols: usize) -> Result<Layout, CublasError> {
        let kind = match dtype {
            Dtype::F32 => sys::cudaDataType_t::CUDA_R_32F,
            Dtype::F16 => sys::cudaDataType_t::CUDA_R_16F,
            Dtype::Bf16 => sys::cudaDataType_t::CUDA_R_16BF,
        };
        result::create_matrix_layout(kind, rows as u64, cols as u64, rows as i64).map(Layout)
    }

    /// The handle, to be destroyed by whoever takes it.
    fn keep(self) -> sys::cublasLtMatrixLayout_t {
        let layout = self.0;
        std::mem::forget(self);
        layout
    }
}

impl Drop for Layout {
    fn drop(&mut self) {
        // SAFETY: made by `new`, destroyed once. An error leaves nothing to be done.
        let _ = unsafe { result::destroy_matrix_layout(self.0) };
    }
}

struct Preference(sys::cublasLtMatmulPreference_t);

impl Drop for Preference {
    fn drop(&mut self) {
        // SAFETY: made by its owner, destroyed once.
        let _ = unsafe { result::destroy_matmul_pref(self.0) };
    }
}

#[cfg(test)]
mod tests {
    use super::bucket;

    #[test]
    fn buckets_hold_their_rows_and_are_few() {
        let mut seen = std::collections::BTreeSet::new();
        for rows in (16..=16384).step_by(16) {
            let bucket = bucket(rows);
            assert!(
                bucket >= rows && bucket - rows < rows.div_ceil(8).max(16),
                "{rows} in {bucket}"
            );
            seen.insert(bucket);
        }
        assert!(seen.len() < 90, "{}", seen.len());
    }
}
