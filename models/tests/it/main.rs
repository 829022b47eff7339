//! Integration tests of models: one program.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that cannot go on has failed"
)]

mod cuda_emulated;
#[path = "../../../kernels/tests/support/emulated.rs"]
mod emulated;
mod fidelity;
mod folders;
mod support;
mod variants;
