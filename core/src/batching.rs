//! From a text to its answer: admission, batching, cost, and what follows a failure.

pub mod context;

pub mod admission;
pub mod request;

pub mod batch;
pub mod batcher;
pub mod cost;
pub mod policy;

pub mod dispatch;
pub mod failure;
pub mod reply;
