//! Integration tests of the CPU paths: one program, which needs no GPU, no Candle and no C++ compiler.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on has failed"
)]

mod bounds;
mod contract;
mod operations;
mod precision;
#[path = "../support/mod.rs"]
mod support;
