//! Stage 1: wire to [`penstock_engine::service::InferenceRequest`]. Wire types end here and in `respond`.

mod inflate;

pub mod v2;

#[cfg(fuzzing)]
pub mod fuzzing;

pub mod grpc;
pub mod http;
pub mod kafka;
