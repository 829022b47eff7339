//! Tests of the JSON and binary forms of a v2 request.

use super::*;

fn check(body: &[u8], json_length: Option<usize>, expected: Result<InferRequest, &str>) {
    let named = ("m".to_owned(), "1".to_owned());
    let shown = String::from_utf8_lossy(body);
    match (
        decode(Bytes::copy_from_slice(body), json_length, 1 << 30, named),
        expected,
    ) {
        (Ok((found, _)), Ok(expected)) => assert_eq!(found, expected, "{shown}"),
        (Err(refusal), Err(expected)) => {
            assert!(format!("{refusal:?}").contains(expected), "{shown}: {refusal:?}");
        }
        (found, expected) => panic!("{shown}: {found:?}, expected {expected:?}"),
    }
}

fn request(data: Data, shape: &[i64]) -> InferRequest {
    let input = v2::Input {
        name: "text".into(),
        datatype: "BYTES".into(),
        shape: shape.into(),
        parameters: vec![],
        data,
    };
    InferRequest {
        model: "m".into(),
        version: "1".into(),
        inputs: vec![input],
        ..InferRequest::default()
    }
}

fn texts(texts: &[&str]) -> Data {
    Data::Texts(texts.iter().map(|&t| t.to_owned()).collect())
}

fn json(shape: &str, data: &str) -> Vec<u8> {
    format!(r#"{{"inputs":[{{"name":"text","datatype":"BYTES","shape":{shape},"data":{data}}}]}}"#)
        .into_bytes()
}

#[test]
fn elements_are_flat_or_nested() {
    check(
        &json("[2]", r#"["a","\u00e9"]"#),
        None,
        Ok(request(texts(&["a", "é"]), &[2])),
    );
    check(
        &json("[2,1]", r#"[["a"],["b"]]"#),
        None,
        Ok(request(texts(&["a", "b"]), &[2, 1])),
    );
    check(
        &json("[1,1]", r#"["a"]"#),
        None,
        Ok(request(texts(&["a"]), &[1, 1])),
    );
    check(&json("[0]", "[]"), None, Ok(request(texts(&[]), &[0])));
    check(
        &json("[1]", "[null]"),
        None,
        Err("element 0 of input \\\"text\\\" is null"),
    );
    check(
        &json("[2]", r#"["a", 7]"#),
        None,
        Err("element 1 of input \\\"text\\\" is a number"),
    );
    check(
        &json("[1]", &("[".repeat(200) + &"]".repeat(200))),
        None,
        Err("recursion limit"),
    );
}

#[test]
fn numbers_have_the_type_of_their_tensor() {
    let body = |datatype: &str, data: &str| {
        format!(r#"{{"inputs":[{{"name":"text","datatype":"{datatype}","shape":[2],"data":{data}}}]}}"#)
    };
    for (datatype, data, expected) in [
        ("INT32", "[1,-2]", Data::Numbers(vec![1, -2])),
        ("INT64", "[[1],[2]]", Data::Numbers(vec![1, 2])),
        // A type that no input has is refused with the tensor.
        ("FP32", "[1,-2.5]", Data::Absent),
    ] {
        let mut expected = request(expected, &[2]);
        expected.inputs[0].datatype = datatype.into();
        check(body(datatype, data).as_bytes(), None, Ok(expected));
    }
    for data in ["[1,-2.5]", "[1,\"a\"]", "[1,null]", "[1,18446744073709551615]"] {
        check(
            body("INT64", data).as_bytes(),
            None,
            Err("element 1 of input \\\"text\\\" is no whole number"),
        );
    }
}

#[test]
fn an_invalid_body_is_reported_with_its_place() {
    check(b"", None, Err("not JSON: EOF"));
    check(
        b"{\"inputs\": [",
        None,
        Err("EOF while parsing a list at line 1 column 12"),
    );
    check(b"[]", None, Err("not what this route takes"));
    check(b"{}", None, Err("missing field `inputs`"));
    check(
        br#"{"inputs":[{"name":"text","datatype":"BYTES"}]}"#,
        None,
        Err("missing field `shape`"),
    );
    check(&json("[1.5]", "[]"), None, Err("floating point"));
    check(
        br#"{"inputs":[],"parameters":{"x":[1]}}"#,
        None,
        Err("a string, a number or a bool"),
    );
    check(
        br#"{"inputs":[],"parameters":{"binary_data_output":1}}"#,
        None,
        Err("expected a bool"),
    );
    let mut latin = json("[1]", r#"["caf?"]"#);
    let at = latin.iter().position(|&b| b == b'?').unwrap();
    latin[at] = 0xe9;
    check(&latin, None, Err("invalid unicode"));
}

#[test]
fn parameters_keep_their_types() {
    let body = br#"{"id":"7","inputs":[],"parameters":
        {"a":true,"b":-1,"c":18446744073709551615,"d":0.5,"e":"x"},"unheard_of":{"of":1}}"#;
    let (found, _) = decode(
        Bytes::from_static(body),
        None,
        1 << 20,
        (String::new(), String::new()),
    )
    .unwrap();
    let expected = [
        ("a", Value::Bool(true)),
        ("b", Value::Int(-1)),
        ("c", Value::Uint(u64::MAX)),
        ("d", Value::Float(0.5)),
        ("e", Value::Text("x".into())),
    ];
    assert_eq!(
        found.parameters,
        expected.map(|(name, value)| (name.to_owned(), value))
    );
    assert_eq!(found.id, "7");
}

/// A body whose inputs have `sizes` bytes of binary data, and `follow` bytes after the JSON.
fn binary(sizes: &[i64], follow: &[u8]) -> (Vec<u8>, usize) {
    let input = |size: &i64| {
        format!(
            r#"{{"name":"text","datatype":"BYTES","shape":[1],"parameters":{{"binary_data_size":{size}}}}}"#
        )
    };
    let inputs: Vec<_> = sizes.iter().map(input).collect();
    let json = format!(r#"{{"inputs":[{}]}}"#, inputs.join(","));
    ([json.as_bytes(), follow].concat(), json.len())
}

#[test]
fn binary_data_follows_the_json_in_the_order_of_the_inputs() {
    let (body, length) = binary(&[5, 2], b"\x01\0\0\0axy");
    let (found, _) = decode(
        Bytes::from(body),
        Some(length),
        1 << 20,
        (String::new(), String::new()),
    )
    .unwrap();
    assert_eq!(
        found.inputs[0].data,
        Data::Raw(Bytes::from_static(b"\x01\0\0\0a"))
    );
    assert_eq!(found.inputs[1].data, Data::Raw(Bytes::from_static(b"xy")));
    let (body, length) = binary(&[6], b"12345");
    check(&body, Some(length), Err("does not fit: 5 bytes"));
    check(&body, None, Err("not JSON"));
    check(&body, Some(body.len() + 1), Err("but the body has"));
    let (body, length) = binary(&[-1], b"12345");
    check(&body, Some(length), Err("does not fit"));
    let (body, length) = binary(&[4], b"12345");
    check(
        &body,
        Some(length),
        Err("1 bytes follow the JSON that belong to no input"),
    );
}

#[test]
fn each_output_says_whether_it_is_binary() {
    let body = br#"{"inputs":[],"parameters":{"binary_data_output":true},
        "outputs":[{"name":"a"},{"name":"b","parameters":{"binary_data":false}}]}"#;
    let (_, binary) = decode(
        Bytes::from_static(body),
        None,
        1 << 20,
        (String::new(), String::new()),
    )
    .unwrap();
    assert_eq!([binary.of(0), binary.of(1)], [true, false]);
    let (_, binary) = decode(
        Bytes::from_static(b"{\"inputs\":[]}"),
        None,
        1 << 20,
        (String::new(), String::new()),
    )
    .unwrap();
    assert!(!binary.of(0));
}

#[test]
fn the_json_length_is_a_number() {
    let headers = |value: &str| {
        let mut headers = HeaderMap::new();
        headers.insert(HEADER_LENGTH, value.parse().unwrap());
        headers
    };
    assert_eq!(json_length(&HeaderMap::new()), Ok(None));
    assert_eq!(json_length(&headers("17")), Ok(Some(17)));
    for wrong in ["-1", "1.5", "all", ""] {
        assert!(json_length(&headers(wrong)).is_err(), "{wrong}");
    }
}

#[test]
fn elements_are_bounded_while_they_are_read() {
    let many = format!("[{}\"\"]", "\"\",".repeat(ELEMENTS_MAX));
    check(&json("[1]", &many), None, Err("more than 1048576 texts"));
}
