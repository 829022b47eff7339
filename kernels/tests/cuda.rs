//! The operations on a real GPU, for machines that have one; elsewhere it says why it did not run.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test that cannot go on has failed, and one that does not run says so"
)]

#[path = "support/cases.rs"]
mod cases;
mod support;

use cases::HEAD_DIMS;
use penstock_kernels::cuda::{Cuda, Dtype, Nvidia, nvidia};
pub(crate) use support::{check, cu_seqlens, random};

fn open(dtype: Dtype) -> Cuda<Nvidia> {
    Cuda::new(Nvidia::open(0, dtype).expect("the GPU opens"), dtype)
}

/// Runs `cases` where there is a GPU. With `PENSTOCK_NEEDS_GPU` set there has to be one.
fn with_gpu(cases: impl FnOnce()) {
    match nvidia::probe(&[0]) {
        Ok(_) => cases(),
        Err(reason) => {
            assert!(
                std::env::var_os("PENSTOCK_NEEDS_GPU").is_none(),
                "no GPU to test on: {reason}"
            );
            eprintln!("SKIPPED, this test needs a GPU: {reason}");
        }
    }
}

#[test]
fn gpu_embedding_is_the_formula() {
    with_gpu(|| cases::embedding(&open));
}

#[test]
fn gpu_linear_is_the_formula() {
    with_gpu(|| cases::linear(&open));
}

#[test]
fn gpu_linear_add_norm_is_the_formula() {
    with_gpu(|| cases::linear_add_norm(&open));
}

#[test]
fn gpu_attention_is_the_formula_for_every_head_size() {
    with_gpu(|| {
        cases::attention(
            &open,
            &[1, 17, 16, 5, 33, 64, 70, 128, 500],
            12,
            &HEAD_DIMS,
            &[false, true],
        );
    });
}

#[test]
fn gpu_attention_reaches_over_texts_of_8192_tokens() {
    with_gpu(|| cases::attention(&open, &[8192, 3], 1, &[64], &[false]));
}

#[test]
fn gpu_attention_takes_many_short_texts() {
    with_gpu(|| cases::attention(&open, &[7; 2000], 2, &[32], &[false]));
}

#[test]
fn gpu_pool_is_the_formula() {
    with_gpu(|| cases::pool(&open));
}

/// The library chooses another algorithm for another number of rows, so sums are taken in another order.
#[test]
fn gpu_layer_is_the_processors_and_a_text_hardly_depends_on_its_batch() {
    with_gpu(|| {
        cases::layer(&open, |dtype| match dtype {
            Dtype::F32 => 1e-5,
            Dtype::F16 => 4e-3,
            Dtype::Bf16 => 3e-2,
        });
    });
}

/// Bit by bit against the same launches one by one; without graphs products have fewer rows, and so perhaps another
/// algorithm.
#[test]
fn gpu_small_batches_are_the_same_through_a_graph() {
    with_gpu(|| {
        cases::graphs(&open, |dtype| match dtype {
            Dtype::F32 => 1e-5,
            Dtype::F16 => 4e-3,
            Dtype::Bf16 => 3e-2,
        });
    });
}

#[test]
fn gpu_refuses_by_name_what_no_kernel_takes() {
    with_gpu(|| cases::refusals(&open));
}
