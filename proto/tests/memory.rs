//! The memory that decoding takes, by a counting allocator: at most three times the message and a mebibyte.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::hint::black_box;

use bytes::Bytes;
use peak_alloc::PeakAlloc;
use penstock_proto::inference::ModelInferRequest;
use penstock_proto::schema::Schema;
use penstock_proto::text::ScoreBatchRequest;
use prost::Message;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

const MIB: usize = 1 << 20;

/// A length-delimited field.
fn field(number: u8, contents: &[u8]) -> Vec<u8> {
    let mut bytes = vec![number << 3 | 2];
    prost::encode_length_delimiter(contents.len(), &mut bytes).unwrap();
    bytes.extend_from_slice(contents);
    bytes
}

/// Checks and decodes `message`; returns whether it was taken.
fn takes<M: Message + Default>(method: &str, message: &Bytes) -> bool {
    let schema = Schema::of_method(method).unwrap();
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    let checked = schema.check(message, MIB);
    let taken = checked.is_ok();
    if taken {
        black_box(M::decode(message.clone()).ok());
    }
    let peak = message.len() + ALLOCATOR.peak_usage() - before;
    let bound = 3 * message.len() + MIB;
    assert!(
        peak <= bound,
        "{method}: {} bytes took {peak}, at most {bound}",
        message.len()
    );
    taken
}

/// As many of `element` as a message may hold, found by doubling, keep the bound; so do those that are refused.
fn check<M: Message + Default>(method: &str, name: &str, element: &[u8], wrap: impl Fn(Vec<u8>) -> Vec<u8>) {
    let (mut count, mut largest) = (1, 0);
    while count * element.len() <= 8 * MIB {
        for count in [count, count + count / 2] {
            if takes::<M>(method, &wrap(element.repeat(count)).into()) {
                largest = count;
            }
        }
        count *= 2;
    }
    assert!(largest > 100, "{name}: only {largest} are taken");
}

#[test]
fn decoding_takes_at_most_three_times_the_message_and_a_mebibyte() {
    let infer = |name: &str, element: &[u8]| {
        check::<ModelInferRequest>(
            "/inference.GRPCInferenceService/ModelInfer",
            name,
            element,
            |all| all,
        );
    };
    infer("empty inputs", &field(5, &[]));
    infer("named inputs", &field(5, &field(1, b"text")));
    infer("empty outputs", &field(6, &[]));
    infer("empty raw contents", &field(7, &[]));
    infer("names again and again", &field(1, b"sentiment"));
    infer("ids again and again", &field(3, &[b'x'; 300]));
    infer("inputs with long names", &field(5, &field(1, &[b'x'; 1000])));
    infer("raw contents", &field(7, &[b'x'; 1000]));
    infer("an unknown field", &field(15, &[]));

    let inside = |name: &str, element: &[u8], number: u8| {
        let wrap = |all: Vec<u8>| field(5, &field(5, &field(number, &all)));
        check::<ModelInferRequest>("/inference.GRPCInferenceService/ModelInfer", name, element, wrap);
    };
    inside("packed bools", &[1], 1);
    inside("packed 32-bit numbers", &[1], 2);
    inside("packed 64-bit numbers", &[1], 3);
    inside("packed floats", &[0, 0, 128, 63], 6);
    inside("packed doubles", &[0; 8], 7);
    let unpacked = |all: Vec<u8>| field(5, &field(5, &all));
    let method = "/inference.GRPCInferenceService/ModelInfer";
    check::<ModelInferRequest>(method, "numbers one by one", &[3 << 3, 1], unpacked);
    check::<ModelInferRequest>(method, "empty texts", &field(8, &[]), unpacked);

    let batch = |name: &str, element: &[u8]| {
        check::<ScoreBatchRequest>("/penstock.v1.TextService/ScoreBatch", name, element, |all| all);
    };
    batch("no texts", &field(2, &[]));
    batch(
        "short texts",
        &field(2, &[field(1, b"1"), field(2, b"a")].concat()),
    );
    batch("long texts", &field(2, &field(2, &[b'a'; 5000])));

    // A map keeps one entry a key, so each needs its own.
    for entries in [100_u32, 1_000, 2_000, 4_000, 20_000] {
        let entry = |i: u32| field(4, &field(1, format!("{i}").as_bytes()));
        let message: Vec<u8> = (0..entries).flat_map(entry).collect();
        takes::<ModelInferRequest>(method, &message.into());
    }
}
