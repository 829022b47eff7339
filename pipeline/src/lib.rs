//! Pipelines: their file, their types, and every decision of a run as a state machine.
//!
//! [`graph`] reads a file into a checked graph, [`plan`] cuts it into stages, [`machine`] runs it. Nothing in
//! here has a thread, a socket, a clock or a model: a run can be replayed.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod expression;
pub mod fault;
pub mod graph;
pub mod machine;
pub mod plan;
mod section;
pub mod test_case;
pub mod types;
pub mod value;

pub use fault::FileError;
pub use graph::Pipeline;
