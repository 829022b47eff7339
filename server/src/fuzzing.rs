//! Entry points of the fuzz targets: bytes to requests, by the production functions. Only `tools/fuzz` builds
//! them.

use bytes::Bytes;
use penstock_proto::inference::ModelInferRequest;
use penstock_proto::schema::Schema;
use prost::Message;

use crate::grpc::wire;
use crate::http::measure;
use crate::http::v2::infer;

/// Protobuf to a v2 request. Bytes that decode must also pass the walk that measures them.
#[allow(clippy::panic, reason = "a fuzz target says by it what it has found")]
pub fn protobuf(bytes: Bytes) {
    let schema = Schema::of_method("/inference.GRPCInferenceService/ModelInfer");
    let measured = schema.map(|schema| schema.check(&bytes, usize::MAX));
    let decoded = ModelInferRequest::decode(bytes);
    match (measured, decoded) {
        (Some(Ok(())), Ok(message)) => drop(wire::request(message)),
        (measured, Ok(_)) => panic!("it decodes and was measured as {measured:?}"),
        (_, Err(_)) => {}
    }
}

/// JSON, and binary data after its first `json_length` bytes, to a v2 request.
pub fn json(body: Bytes, json_length: Option<usize>) {
    let allowance = 1 << 20;
    let _ = measure::check(&body, allowance, "data");
    let _ = infer::decode(body, json_length, allowance, (String::new(), String::new()));
}
