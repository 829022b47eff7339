//! The wire contracts: `KServe` v2 as Triton numbers it, and `penstock.v1`. Generated from the .proto files.

pub mod codec;
pub mod schema;

/// `KServe` v2 with Triton's extensions (`proto/wire/`).
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod inference {
    tonic::include_proto!("inference");
}

/// Penstock's own typed protocol (`proto/wire/penstock/v1/text.proto`).
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod text {
    tonic::include_proto!("penstock.v1");
}

/// Every .proto file with its comments, encoded as a `FileDescriptorSet` for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
