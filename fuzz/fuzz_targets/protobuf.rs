//! Any bytes as a `ModelInfer` message: a request or an error, and every decoded message was measured before.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| penstock::fuzzing::protobuf(bytes.to_vec().into()));
