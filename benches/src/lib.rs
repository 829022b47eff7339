//! Shared parts of the benches: the workload, the load generator, the bare forward, the products, the
//! scheduler without a model.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod forward;
pub mod gemm;
pub mod load;
pub mod model;
pub mod scheduler;
pub mod workload;
