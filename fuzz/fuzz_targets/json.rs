//! Any bytes as the body of an inference request over HTTP, with and without binary data after the JSON.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (Option<u16>, &[u8])| {
    let (json_length, body) = input;
    penstock::fuzzing::json(body.to_vec().into(), json_length.map(usize::from));
});
