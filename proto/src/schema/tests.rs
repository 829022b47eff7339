//! The walk agrees with the decoder about what is protobuf, and with the compiler about sizes.

use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::inference::infer_parameter::ParameterChoice;
use crate::inference::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use crate::inference::{InferParameter, InferTensorContents, ModelInferRequest};
use crate::text::{ScoreBatchRequest, Text};

const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";
const SCORE_BATCH: &str = "/penstock.v1.TextService/ScoreBatch";

fn schema(path: &str) -> &'static Schema {
    Schema::of_method(path).expect("the method has a schema")
}

fn request() -> ModelInferRequest {
    let parameter = InferParameter {
        parameter_choice: Some(ParameterChoice::StringParam("interactive".into())),
    };
    ModelInferRequest {
        model_name: "sentiment".into(),
        id: "7".into(),
        parameters: [("priority".to_owned(), parameter)].into(),
        inputs: vec![InferInputTensor {
            name: "text".into(),
            datatype: "BYTES".into(),
            shape: vec![2, 1],
            contents: Some(InferTensorContents {
                bytes_contents: vec!["one".into(), "two".into()],
                fp32_contents: vec![1.0; 9],
                int64_contents: vec![-1; 5],
                bool_contents: vec![true; 3],
                ..InferTensorContents::default()
            }),
            ..InferInputTensor::default()
        }],
        outputs: vec![InferRequestedOutputTensor::default(); 3],
        raw_input_contents: vec![vec![7; 100].into()],
        ..ModelInferRequest::default()
    }
}

#[test]
fn every_method_of_both_services_has_a_schema() {
    for method in [
        INFER,
        SCORE_BATCH,
        "/inference.GRPCInferenceService/ModelStreamInfer",
        "/inference.GRPCInferenceService/RepositoryModelLoad",
        "/penstock.v1.TextService/Score",
    ] {
        assert!(Schema::of_method(method).is_some(), "{method}");
    }
    assert!(Schema::of_method("/grpc.health.v1.Health/Check").is_none());
}

#[test]
fn a_size_is_no_less_than_the_decoded_struct() {
    let sizes = [
        ("inference.ModelInferRequest", size_of::<ModelInferRequest>()),
        (
            "inference.ModelInferRequest.InferInputTensor",
            size_of::<InferInputTensor>(),
        ),
        (
            "inference.ModelInferRequest.InferRequestedOutputTensor",
            size_of::<InferRequestedOutputTensor>(),
        ),
        ("inference.InferTensorContents", size_of::<InferTensorContents>()),
        ("inference.InferParameter", size_of::<InferParameter>()),
        ("penstock.v1.Text", size_of::<Text>()),
        ("penstock.v1.ScoreBatchRequest", size_of::<ScoreBatchRequest>()),
    ];
    for (name, size) in sizes {
        let found = find(schema(INFER), name).or_else(|| find(schema(SCORE_BATCH), name));
        let bound = found.expect("the schema is reached").size;
        assert!((size..=3 * size).contains(&bound), "{name}: {bound} for {size}");
    }
}

fn find(schema: &'static Schema, name: &str) -> Option<&'static Schema> {
    let inner = |field: &'static Field| match field.kind {
        Kind::Message(inner) => find(inner, name),
        _ => None,
    };
    (schema.name == name)
        .then_some(schema)
        .or_else(|| schema.fields.iter().find_map(inner))
}

#[test]
fn a_request_with_every_kind_of_field_passes() {
    let bytes = request().encode_to_vec();
    assert_eq!(schema(INFER).check(&bytes, 1 << 20), Ok(()));
    let texts = vec![
        Text {
            id: "1".into(),
            text: "a word or two".into()
        };
        8192
    ];
    let batch = ScoreBatchRequest { texts, options: None };
    assert_eq!(
        schema(SCORE_BATCH).check(&batch.encode_to_vec(), 160 * 8192),
        Ok(())
    );
}

#[test]
fn elements_that_take_far_more_than_their_bytes_are_refused_and_named() {
    let cases: [(&str, Vec<u8>); 6] = [
        ("inputs", [0x2a, 0].repeat(1 << 20)),
        ("outputs", [0x32, 0].repeat(1 << 20)),
        ("raw_input_contents", [0x3a, 0].repeat(1 << 20)),
        ("parameters", [0x22, 0].repeat(1 << 20)),
        // One input with as many dimensions, packed: a byte each on the wire, eight in memory.
        ("shape", delimited(0x2a, &delimited(0x1a, &[1].repeat(1 << 20)))),
        (
            "bytes_contents",
            delimited(0x2a, &delimited(0x2a, &[0x42, 0].repeat(1 << 20))),
        ),
    ];
    for (name, bytes) in cases {
        match schema(INFER).check(&bytes, 1 << 20) {
            Err(refusal @ Refusal::TooLarge { field, .. }) => {
                assert_eq!(field, name);
                assert!(
                    refusal.to_string().contains(&format!("field \"{name}\"")),
                    "{refusal}"
                );
            }
            other => panic!("{name}: {other:?}"),
        }
    }
}

fn delimited(tag: u8, contents: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    let mut length = contents.len();
    while length >= 0x80 {
        bytes.push(length as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
    bytes.extend_from_slice(contents);
    bytes
}

#[test]
fn malformed_bytes_are_named_by_their_place() {
    let check = |bytes: &[u8], expected| match schema(INFER).check(bytes, 1 << 20) {
        Err(Refusal::Malformed(what, at)) => assert_eq!((what, at), expected, "{bytes:?}"),
        other => panic!("{bytes:?}: {other:?}"),
    };
    check(&[0x0a, 5, b'a'], ("a field that is cut off", 2));
    check(&[0x08, 1], ("a field of another type than its number has", 1));
    check(&[0x80], ("a number that is cut off", 1));
    check(&[0xff; 11], ("a number of more than 64 bits", 10));
    check(&[0x02, 0], ("field number 0", 1));
    check(&[0x0e], ("an unknown wire type", 1));
    check(&[0x7c], ("the end of a group that has no beginning", 1));
    check(&[0x7b].repeat(200), ("groups nest too deep", 102));
}

proptest! {
    /// The walk may refuse what the decoder takes only for its size, and has to see all that the decoder sees.
    #[test]
    fn any_bytes_that_decode_also_pass(
        bytes in prop::collection::vec(prop_oneof![
            prop::sample::select(vec![0x0a_u8, 0x22, 0x2a, 0x32, 0x3a, 0x1a, 0x42, 0, 1, 2, 3, 4, 6]),
            any::<u8>(),
        ], 0..60),
    ) {
        let decoded = ModelInferRequest::decode(bytes.as_slice());
        let walked = schema(INFER).check(&bytes, 1 << 20);
        prop_assert!(decoded.is_err() || walked.is_ok(), "{walked:?}");
    }

    /// Bytes that are changed in a few places reach deeper than bytes at random.
    #[test]
    fn a_request_with_wrong_bytes_passes_where_it_decodes(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let mut bytes = request().encode_to_vec();
        for (place, byte) in changes {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        let decoded = ModelInferRequest::decode(bytes.as_slice());
        let walked = schema(INFER).check(&bytes, 1 << 20);
        prop_assert!(decoded.is_err() || walked.is_ok(), "{walked:?}");
    }
}
