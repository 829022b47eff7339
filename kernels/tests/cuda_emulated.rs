//! The CUDA kernels and their launches, on the processor: no GPU is needed, a C++ compiler is.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

#[path = "support/cases.rs"]
mod cases;
#[path = "support/emulated.rs"]
mod emulated;
mod support;

use cases::HEAD_DIMS;
use emulated::Emulated;
use penstock_kernels::cuda::{Cuda, Dtype};
pub(crate) use support::{check, cu_seqlens, random};

fn open(dtype: Dtype) -> Cuda<Emulated> {
    Cuda::new(Emulated::new(dtype), dtype)
}

#[test]
fn embedding_is_the_formula() {
    cases::embedding(&open);
}

#[test]
fn linear_is_the_formula() {
    cases::linear(&open);
}

#[test]
fn linear_add_norm_is_the_formula() {
    cases::linear_add_norm(&open);
}

#[test]
fn attention_is_the_formula_for_every_head_size() {
    cases::attention(&open, &[1, 17, 16, 5, 33, 64, 70], 2, &HEAD_DIMS, &[false, true]);
}

#[test]
fn long_texts_pass_through_several_blocks_of_keys() {
    cases::attention(&open, &[300, 1, 129], 1, &[32, 80], &[false, true]);
    cases::attention(&open, &[128], 1, &[64], &[false]);
}

#[test]
fn pool_is_the_formula() {
    cases::pool(&open);
}

/// Products are computed row by row here, so a text is bit by bit the same in any batch.
#[test]
fn a_layer_is_the_processors_and_a_text_does_not_depend_on_its_batch() {
    cases::layer(&open, |_| 0.0);
}

#[test]
fn executors_side_by_side_compute_the_rows_of_one() {
    let device = std::cell::RefCell::new(None);
    let first = |dtype| {
        let emulated = Emulated::new(dtype);
        device.replace(Some(emulated.beside()));
        Cuda::new(emulated, dtype)
    };
    cases::executors(&first, &|dtype| {
        Cuda::new(device.borrow().as_ref().unwrap().beside(), dtype)
    });
}

#[test]
fn small_batches_are_the_same_through_a_graph() {
    cases::graphs(&open, |_| 0.0);
}

#[test]
fn unsupported_operands_are_refused_by_name() {
    cases::refusals(&open);
}
