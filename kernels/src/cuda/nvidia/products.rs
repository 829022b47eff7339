//! Matrix products through cuBLASLt, with the algorithm chosen once for each shape bucket.

use std::collections::HashMap;
use std::sync::Arc;

use cudarc::cublaslt::result::{self, CublasError};
use cudarc::cublaslt::sys::{
    self, cublasLtMatmulDescAttributes_t as Attribute, cublasLtMatmulPreferenceAttributes_t as Wish,
    cublasLtReductionScheme_t as Scheme,
};

use super::card::{Card, Memory, undisturbed};
use crate::cuda::driver::{Dtype, Epilogue, MatrixProduct};
use crate::ops::KernelError;

/// Size that NVIDIA recommends for Hopper; older GPUs take less and have it to spare.
const WORKSPACE_BYTES: usize = 32 << 20;

/// Sums in f32 of the parts of a product whose inputs are split over blocks. By default the library may round each
/// part to 16 bits first.
const SUMS: u32 =
    Scheme::CUBLASLT_REDUCTION_SCHEME_NONE as u32 | Scheme::CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE as u32;

pub(super) struct Products {
    card: Arc<Card>,
    handle: sys::cublasLtHandle_t,
    workspace: Memory,
    dtype: Dtype,
    plans: HashMap<Shape, Plan>,
}

/// Key of a plan. Buckets of rows times the matrices of a model: a few hundred at most.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Shape {
    rows: usize,
    inp: usize,
    out_cols: usize,
    epilogue: Epilogue,
}

struct Plan {
    description: Description,
    weight: Layout,
    algorithm: sys::cublasLtMatmulAlgo_t,
}

// SAFETY: the handle and the descriptions are used by the one thread that owns this value at a time.
unsafe impl Send for Products {}

impl Products {
    pub(super) fn new(card: &Arc<Card>, dtype: Dtype) -> Result<Products, KernelError> {
        card.bind()?;
        let handle = result::create_handle().map_err(|e| refused(card, "opening cuBLASLt".into(), e))?;
        // From here on `drop` gives the handle back.
        let workspace = match Memory::new(card, WORKSPACE_BYTES) {
            Ok(workspace) => workspace,
            Err(error) => {
                // SAFETY: the handle was made above and is not used yet.
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
    pub(super) fn multiply(&mut self, product: &MatrixProduct) -> Result<(), KernelError> {
        let exact = Shape {
            rows: product.rows,
            inp: product.inp,
            out_cols: product.out_cols,
            epilogue: product.epilogue,
        };
        // A plan for these very rows exists where the bucket's plan was refused before.
        let first = if self.plans.contains_key(&exact) {
            exact
        } else {
            Shape {
                rows: bucket(product.rows),
                ..exact
            }
        };
        let mut outcome = self.run(product, first);
        if outcome.is_err() && first != exact {
            // An algorithm that was chosen for the bucket need not take every shape in it.
            outcome = self.run(product, exact);
        }
        outcome.map_err(|error| refused(&self.card, product.to_string(), error))
    }

    fn run(&mut self, product: &MatrixProduct, shape: Shape) -> Result<(), CublasError> {
        if !self.plans.contains_key(&shape) {
            let plan = self.plan(shape, product.bias)?;
            self.plans.insert(shape, plan);
        }
        let Some(plan) = self.plans.get(&shape) else {
            return Err(CublasError(sys::cublasStatus_t::CUBLAS_STATUS_INTERNAL_ERROR));
        };
        plan.description
            .set(Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, &product.bias)?;
        let x = Layout::new(self.dtype, product.inp, product.rows)?;
        let out = Layout::new(self.dtype, product.out_cols, product.rows)?;
        let (one, zero) = (1.0_f32, 0.0_f32);
        // SAFETY: the layouts describe dense matrices of `rows` rows, which the caller's buffers hold up to a
        // whole step of rows; weight and bias are as long as `Matrix` made them. `out` overlaps none of them.
        // The scalars are read before the call returns. The stream and the workspace live as long as `self`.
        unsafe {
            result::matmul(
                self.handle,
                plan.description.0,
                (&raw const one).cast(),
                (&raw const zero).cast(),
                product.weight as *const _,
                plan.weight.0,
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
    fn plan(&self, shape: Shape, bias: u64) -> Result<Plan, CublasError> {
        let description = Description::new()?;
        // 1 transposes: the weights' rows are inputs.
        description.set(Attribute::CUBLASLT_MATMUL_DESC_TRANSA, &1_i32)?;
        description.set(Attribute::CUBLASLT_MATMUL_DESC_TRANSB, &0_i32)?;
        let epilogue = match shape.epilogue {
            Epilogue::Bias => sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS,
            Epilogue::BiasRelu => sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_RELU_BIAS,
            Epilogue::BiasGeluTanh => sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_GELU_BIAS,
        };
        description.set(Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue)?;
        // The bias's alignment is part of the question.
        description.set(Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias)?;
        let weight = Layout::new(self.dtype, shape.inp, shape.out_cols)?;
        let x = Layout::new(self.dtype, shape.inp, shape.rows)?;
        let out = Layout::new(self.dtype, shape.out_cols, shape.rows)?;
        let preference = Preference::new()?;
        preference.set(
            Wish::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
            &self.workspace.bytes,
        )?;
        preference.set(Wish::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &SUMS)?;
        // The question has been seen to fail while any stream of the process is recorded.
        let _alone = undisturbed();
        // SAFETY: everything was made above and lives.
        let found = unsafe {
            result::get_matmul_algo_heuristic(
                self.handle,
                description.0,
                weight.0,
                x.0,
                out.0,
                out.0,
                preference.0,
            )?
        };
        Ok(Plan {
            description,
            weight,
            algorithm: found.algo,
        })
    }
}

impl Drop for Products {
    fn drop(&mut self) {
        if self.card.bind().and_then(|()| self.card.settle()).is_ok() {
            // SAFETY: made by `new`, destroyed once, and no product is left that uses it.
            let _ = unsafe { result::destroy_handle(self.handle) };
        }
    }
}

/// Error for a status of the library, which may also come from an earlier piece of work.
fn refused(card: &Card, work: String, CublasError(status): CublasError) -> KernelError {
    if status == sys::cublasStatus_t::CUBLAS_STATUS_ALLOC_FAILED {
        return card.out_of_memory(0);
    }
    card.refused_or_lost(work, &status)
}

/// Rows up to the next of eight steps between two powers of two, so that algorithms are chosen a few hundred
/// times at most and for about the right shape.
fn bucket(rows: usize) -> usize {
    let step = (rows.next_power_of_two() / 16).max(16);
    rows.next_multiple_of(step)
}

/// Description of a product: its number formats and its epilogue.
struct Description(sys::cublasLtMatmulDesc_t);

impl Description {
    fn new() -> Result<Description, CublasError> {
        let float = sys::cudaDataType_t::CUDA_R_32F;
        result::create_matmul_desc(sys::cublasComputeType_t::CUBLAS_COMPUTE_32F, float).map(Description)
    }

    fn set<T>(&self, attribute: Attribute, value: &T) -> Result<(), CublasError> {
        let value = std::ptr::from_ref(value).cast();
        // SAFETY: the description lives, and the callers give each attribute a value of its own type.
        unsafe { result::set_matmul_desc_attribute(self.0, attribute, value, size_of::<T>()) }
    }
}

impl Drop for Description {
    fn drop(&mut self) {
        // SAFETY: made by `new`, destroyed once; the library keeps none of it after a call. An error leaves nothing
        // to be done.
        let _ = unsafe { result::destroy_matmul_desc(self.0) };
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
}

impl Drop for Layout {
    fn drop(&mut self) {
        // SAFETY: made by `new`, destroyed once. An error leaves nothing to be done.
        let _ = unsafe { result::destroy_matrix_layout(self.0) };
    }
}

struct Preference(sys::cublasLtMatmulPreference_t);

impl Preference {
    fn new() -> Result<Preference, CublasError> {
        result::create_matmul_pref().map(Preference)
    }

    fn set<T>(&self, wish: Wish, value: &T) -> Result<(), CublasError> {
        let value = std::ptr::from_ref(value).cast();
        // SAFETY: the preference lives, and the callers give each attribute a value of its own type.
        unsafe { result::set_matmul_pref_attribute(self.0, wish, value, size_of::<T>()) }
    }
}

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
