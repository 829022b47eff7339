//! Stage 6: rows to wire.

pub mod v2;

pub mod grpc;
pub mod http;
