//! Tests of v2 requests: accepted values, error messages, and robustness against any bytes.

use std::time::Duration;

use penstock_core::{Class, Nanos, Source};
use penstock_models::Task;
use proptest::prelude::*;

use super::*;
use penstock_models::testing::spec;

/// Time of receipt of every request.
const RECEIVED: Nanos = Nanos(5);

fn texts_of(texts: &[&str]) -> Vec<ModelInput> {
    let text = |text: &&str| ModelInput::Text((*text).to_owned());
    texts.iter().map(text).collect()
}

fn bytes_of(input: &ModelInput) -> Option<&[u8]> {
    match input {
        ModelInput::Text(text) => Some(text.as_bytes()),
        ModelInput::TokenIds(_) => None,
    }
}

fn limits() -> Limits {
    Limits {
        max_request_texts: 4,
        max_request_bytes: 1 << 20,
        stream_in_flight_max: 8,
        queue_texts_max: 8,
        queue_tokens_max: 1024,
        queue_bytes_max: 1 << 20,
        connections_max: 8,
        connections_per_address_max: None,
        streams_max: 8,
    }
}

fn raw(texts: &[&[u8]]) -> Bytes {
    let mut raw = Vec::new();
    for text in texts {
        raw.extend_from_slice(&(text.len() as u32).to_le_bytes());
        raw.extend_from_slice(text);
    }
    raw.into()
}

fn input(shape: &[i64], data: Data) -> Input {
    Input {
        name: "TEXT".to_owned(),
        datatype: "BYTES".to_owned(),
        shape: shape.to_vec(),
        parameters: Vec::new(),
        data,
    }
}

fn request(inputs: Vec<Input>) -> InferRequest {
    InferRequest {
        model: "m".to_owned(),
        id: "7".to_owned(),
        inputs,
        ..InferRequest::default()
    }
}

fn two() -> InferRequest {
    request(vec![input(&[2], Data::Raw(raw(&[b"a", b""])))])
}

fn run(task: Task, request: InferRequest) -> Result<Checked, String> {
    let context = RequestContext::new(Source::Grpc, RECEIVED);
    read(request, &spec(task, &["bad", "good"]), &limits(), context).map_err(|e| {
        assert!(matches!(e, Rejection::Invalid(_)), "{e:?}");
        e.to_string()
    })
}

/// Expects a refusal whose message holds every one of `words`.
fn refused(request: InferRequest, words: &[&str]) {
    let message = run(Task::Embedding, request).unwrap_err();
    for word in words {
        assert!(message.contains(word), "{message:?} does not name {word:?}");
    }
}

fn with(name: &str, value: Value) -> InferRequest {
    InferRequest {
        parameters: vec![(name.to_owned(), value)],
        ..two()
    }
}

fn wanting(names: &[&str]) -> InferRequest {
    let wanted = |name: &&str| Wanted {
        name: (*name).to_owned(),
        parameters: Vec::new(),
    };
    InferRequest {
        outputs: names.iter().map(wanted).collect(),
        ..two()
    }
}

#[test]
fn texts_are_read_from_every_form_and_both_shapes() {
    let elements = Data::Elements(vec![Bytes::from_static(b"a"), Bytes::new()]);
    let texts = Data::Texts(vec!["a".to_owned(), String::new()]);
    for data in [Data::Raw(raw(&[b"a", b""])), elements, texts] {
        for shape in [&[2][..], &[2, 1]] {
            let checked = run(Task::Embedding, request(vec![input(shape, data.clone())])).unwrap();
            assert_eq!(checked.inputs, texts_of(&["a", ""]));
            assert_eq!(checked.context.received, RECEIVED);
            assert_eq!(checked.asked.id, "7");
        }
    }
}

#[test]
fn a_wrong_tensor_is_refused_with_the_right_one() {
    refused(request(Vec::new()), &["no input", "\"text\"", "BYTES"]);
    let text = || input(&[1], Data::Raw(raw(&[b"a"])));
    refused(
        request(vec![Input {
            name: "sentence".into(),
            ..text()
        }]),
        &["\"sentence\"", "\"text\""],
    );
    refused(request(vec![text(), text()]), &["twice"]);
    refused(
        request(vec![Input {
            datatype: "FP32".into(),
            ..text()
        }]),
        &["FP32", "BYTES"],
    );
    refused(
        request(vec![Input {
            data: Data::Absent,
            ..text()
        }]),
        &["no BYTES elements"],
    );
}

#[test]
fn a_wrong_shape_is_refused_with_the_right_one() {
    for shape in [&[][..], &[1, 2], &[2, 2], &[-1], &[2, 1, 1], &[i64::MIN]] {
        refused(
            request(vec![input(shape, Data::Raw(raw(&[b"a", b"b"])))]),
            &["[n] or [n,1]"],
        );
    }
    refused(request(vec![input(&[0], Data::Raw(Bytes::new()))]), &["no text"]);
    refused(
        request(vec![input(&[3], Data::Raw(raw(&[b"a", b"b"])))]),
        &["2 elements", "says 3"],
    );
    refused(
        request(vec![input(&[1], Data::Raw(raw(&[b"a", b"b"])))]),
        &["5 bytes more", "1 elements"],
    );
    refused(
        request(vec![input(&[1], Data::Elements(Vec::new()))]),
        &["0 elements", "says 1"],
    );
    refused(
        request(vec![input(&[i64::MAX], Data::Absent)]),
        &["max_request_texts = 4"],
    );
}

#[test]
fn broken_bytes_are_named_by_element() {
    refused(
        request(vec![input(&[2], Data::Raw(raw(&[b"a", b"b\xff"])))]),
        &["element 1", "UTF-8", "byte 1"],
    );
    let elements = Data::Elements(vec![Bytes::from_static(b"\xc3")]);
    refused(request(vec![input(&[1], elements)]), &["element 0", "UTF-8"]);
    let cut = Data::Raw(Bytes::from_static(b"\x01\0\0\0a\x09\0\0\0b"));
    refused(
        request(vec![input(&[2], cut)]),
        &["element 1", "9 bytes", "1 follow"],
    );
    let prefix = Data::Raw(Bytes::from_static(b"\x01\0"));
    refused(
        request(vec![input(&[1], prefix)]),
        &["element 0", "4 bytes", "2 follow"],
    );
}

#[test]
fn outputs_are_answered_by_the_names_they_were_asked_for() {
    let asked = run(Task::SequenceClassification, two()).unwrap().asked;
    let names: Vec<_> = asked.outputs.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        ["label", "score", "probabilities"],
        "logits come only when asked for"
    );
    let asked = run(Task::SequenceClassification, wanting(&["LOGITS", "Label"]))
        .unwrap()
        .asked;
    let outputs: Vec<_> = asked
        .outputs
        .iter()
        .map(|(name, output)| (name.as_str(), output.name))
        .collect();
    assert_eq!(outputs, [("LOGITS", "logits"), ("Label", "label")]);
    refused(wanting(&["label"]), &["\"label\"", "embedding"]);
    refused(wanting(&["embedding", "EMBEDDING"]), &["twice"]);
}

#[test]
fn parameters_mean_what_triton_means() {
    let call = |name, value| run(Task::Embedding, with(name, value)).unwrap().context;
    let text = |value: &str| Value::Text(value.to_owned());
    for value in [text("interactive"), Value::Int(0), Value::Uint(1)] {
        assert_eq!(call("priority", value).class, Class::Interactive);
    }
    for value in [text("bulk"), Value::Int(2), Value::Uint(u64::MAX)] {
        assert_eq!(call("priority", value).class, Class::Bulk);
    }
    assert_eq!(
        call("timeout", Value::Int(1500)).deadline,
        Some(RECEIVED + Duration::from_micros(1500))
    );
    assert_eq!(call("timeout", Value::Int(0)).deadline, None);
    assert!(!call("truncate", Value::Bool(false)).truncate);
    let shape = |name, value| run(Task::Embedding, with(name, value)).unwrap().asked.shape;
    assert_eq!(
        shape("normalize", Value::Bool(true)),
        Shape {
            normalize: true,
            dimensions: None
        }
    );
    assert_eq!(
        shape("dimensions", Value::Int(3)),
        Shape {
            normalize: false,
            dimensions: Some(3)
        }
    );
    for tolerated in [
        "sequence_id",
        "sequence_start",
        "sequence_end",
        "binary_data_output",
    ] {
        call(tolerated, Value::Uint(1));
    }
    let marked = run(
        Task::Embedding,
        with("triton_enable_empty_final_response", Value::Bool(true)),
    );
    assert!(marked.unwrap().asked.mark_final);
}

#[test]
fn a_wrong_parameter_is_refused_with_the_known_ones() {
    refused(
        with("prio", Value::Int(1)),
        &["\"prio\"", "priority", "timeout", "truncate"],
    );
    refused(
        with("priority", Value::Text("urgent".into())),
        &["\"urgent\"", "\"bulk\""],
    );
    refused(with("priority", Value::Int(-1)), &["-1"]);
    refused(
        with("timeout", Value::Text("1s".into())),
        &["\"1s\"", "microseconds"],
    );
    refused(with("timeout", Value::Float(0.5)), &["0.5", "microseconds"]);
    refused(with("truncate", Value::Int(1)), &["a bool"]);
    for dimensions in [0, 5, -1] {
        refused(with("dimensions", Value::Int(dimensions)), &["from 1 to 4"]);
    }
    let message = run(Task::SequenceClassification, with("normalize", Value::Bool(true))).unwrap_err();
    assert!(
        message.contains("embedding models") && message.contains("sequence-classification"),
        "{message}"
    );
}

#[test]
fn parameters_of_tensors_are_checked_too() {
    let of_input = |name: &str| {
        let parameters = vec![(name.to_owned(), Value::Int(1))];
        request(vec![Input {
            parameters,
            ..input(&[1], Data::Raw(raw(&[b"a"])))
        }])
    };
    run(Task::Embedding, of_input("binary_data_size")).unwrap();
    refused(of_input("shared_memory_region"), &["shared memory"]);
    refused(of_input("scale"), &["\"scale\"", "\"TEXT\""]);
    let of_output = |name: &str, value: Value| {
        let outputs = vec![Wanted {
            name: "embedding".into(),
            parameters: vec![(name.to_owned(), value)],
        }];
        InferRequest { outputs, ..two() }
    };
    run(Task::Embedding, of_output("binary_data", Value::Bool(false))).unwrap();
    run(Task::Embedding, of_output("classification", Value::Int(0))).unwrap();
    refused(
        of_output("classification", Value::Int(2)),
        &["classification", "label"],
    );
    refused(
        of_output("shared_memory_offset", Value::Int(2)),
        &["shared memory"],
    );
}

#[test]
fn a_long_name_comes_back_short() {
    let message = run(Task::Embedding, with(&"ü".repeat(100_000), Value::Int(1))).unwrap_err();
    assert!(message.len() < 300, "{} bytes", message.len());
}

proptest! {
    #[test]
    fn any_raw_bytes_are_texts_or_an_error(bytes: Vec<u8>, n in -2_i64..6) {
        let data = Data::Raw(bytes.clone().into());
        if let Ok(checked) = run(Task::Embedding, request(vec![input(&[n], data)])) {
            prop_assert_eq!(checked.inputs.len() as i64, n);
            let texts: Vec<&[u8]> = checked.inputs.iter().filter_map(bytes_of).collect();
            prop_assert_eq!(raw(&texts), bytes);
        }
    }

    #[test]
    fn any_texts_come_through_raw(texts in prop::collection::vec(any::<String>(), 1..=4)) {
        let bytes: Vec<&[u8]> = texts.iter().map(String::as_bytes).collect();
        let data = Data::Raw(raw(&bytes));
        let checked = run(Task::Embedding, request(vec![input(&[texts.len() as i64], data)])).unwrap();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        prop_assert_eq!(checked.inputs, texts_of(&texts));
    }
}
