//! `inference` messages as wire-neutral v2 requests.

use std::collections::HashMap;

use bytes::Bytes;
use penstock_core::Rejection;
use penstock_proto::inference::infer_parameter::ParameterChoice;
use penstock_proto::inference::model_infer_request::InferInputTensor;
use penstock_proto::inference::{InferParameter, InferTensorContents, ModelInferRequest};

use crate::v2::request::{Data, InferRequest, Input, Value, Wanted};

/// Converts the request.
pub fn request(request: ModelInferRequest) -> Result<InferRequest, Rejection> {
    let ModelInferRequest {
        model_name,
        model_version,
        id,
        parameters,
        inputs,
        outputs,
        raw_input_contents,
    } = request;
    let wanted = outputs
        .into_iter()
        .map(|output| Wanted {
            name: output.name,
            parameters: values(output.parameters),
        })
        .collect();
    Ok(InferRequest {
        model: model_name,
        version: model_version,
        id,
        parameters: values(parameters),
        inputs: tensors(inputs, raw_input_contents)?,
        outputs: wanted,
    })
}

fn tensors(inputs: Vec<InferInputTensor>, raw: Vec<Bytes>) -> Result<Vec<Input>, Rejection> {
    let count = inputs.len();
    if !raw.is_empty() && raw.len() != count {
        return Err(Rejection::Invalid(format!(
            "the request holds {} raw_input_contents for {count} inputs",
            raw.len()
        )));
    }
    let mut raw = raw.into_iter();
    let tensor = |input: InferInputTensor| {
        let InferInputTensor {
            name,
            datatype,
            shape,
            parameters,
            contents,
        } = input;
        let data = match (raw.next(), contents.map_or(Data::Absent, elements)) {
            (Some(raw), Data::Absent) => Data::Raw(raw),
            (None, data) => data,
            (Some(_), _) => {
                return Err(Rejection::Invalid(format!(
                    "input \"{name}\" is given twice: in contents and in raw_input_contents"
                )));
            }
        };
        Ok(Input {
            name,
            datatype,
            shape,
            parameters: values(parameters),
            data,
        })
    };
    inputs.into_iter().map(tensor).collect()
}

/// The elements of the types that inputs have.
fn elements(contents: InferTensorContents) -> Data {
    let InferTensorContents {
        bytes_contents,
        int_contents,
        int64_contents,
        ..
    } = contents;
    if !bytes_contents.is_empty() {
        Data::Elements(bytes_contents)
    } else if !int64_contents.is_empty() {
        Data::Numbers(int64_contents)
    } else if !int_contents.is_empty() {
        Data::Numbers(int_contents.into_iter().map(i64::from).collect())
    } else {
        Data::Absent
    }
}

fn values(parameters: HashMap<String, InferParameter>) -> Vec<(String, Value)> {
    let value = |parameter: InferParameter| match parameter.parameter_choice {
        Some(ParameterChoice::BoolParam(value)) => Value::Bool(value),
        Some(ParameterChoice::Int64Param(value)) => Value::Int(value),
        Some(ParameterChoice::Uint64Param(value)) => Value::Uint(value),
        Some(ParameterChoice::DoubleParam(value)) => Value::Float(value),
        Some(ParameterChoice::StringParam(value)) => Value::Text(value),
        None => Value::Text(String::new()),
    };
    parameters
        .into_iter()
        .map(|(name, parameter)| (name, value(parameter)))
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;

    use super::*;

    fn input(elements: &[&'static [u8]]) -> InferInputTensor {
        let bytes_contents = elements.iter().map(|&e| Bytes::from_static(e)).collect();
        let contents = (!elements.is_empty()).then(|| InferTensorContents {
            bytes_contents,
            ..InferTensorContents::default()
        });
        InferInputTensor {
            name: "text".into(),
            contents,
            ..InferInputTensor::default()
        }
    }

    fn data(inputs: Vec<InferInputTensor>, raw: Vec<Bytes>) -> Result<Vec<Data>, String> {
        let message = ModelInferRequest {
            inputs,
            raw_input_contents: raw,
            ..ModelInferRequest::default()
        };
        let request = request(message).map_err(|e| e.to_string())?;
        Ok(request.inputs.into_iter().map(|input| input.data).collect())
    }

    #[test]
    fn contents_are_taken_from_where_they_are() {
        let raw = Bytes::from_static(b"raw");
        assert_eq!(
            data(vec![input(&[])], vec![raw.clone()]),
            Ok(vec![Data::Raw(raw.clone())])
        );
        let elements = vec![Bytes::from_static(b"a")];
        assert_eq!(
            data(vec![input(&[b"a"])], Vec::new()),
            Ok(vec![Data::Elements(elements)])
        );
        assert_eq!(data(vec![input(&[])], Vec::new()), Ok(vec![Data::Absent]));
        assert!(
            data(vec![input(&[b"a"])], vec![raw.clone()])
                .unwrap_err()
                .contains("twice")
        );
        assert!(
            data(vec![input(&[])], vec![raw.clone(), raw])
                .unwrap_err()
                .contains("2 raw_input_contents")
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_request_or_an_error(bytes: Vec<u8>) {
            if let Ok(message) = ModelInferRequest::decode(bytes.as_slice()) {
                let _ = request(message);
            }
        }
    }
}
