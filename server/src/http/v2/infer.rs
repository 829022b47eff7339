//! `POST /v2/models/NAME/infer`: JSON, followed by the tensors in binary form.

use std::fmt;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, Response};
use bytes::Bytes;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::response::{self as answer, Binary, HEADER_LENGTH};
use crate::http::measure;
use crate::http::response::{Dialect, Refusal};
use crate::http::texts::{ELEMENTS_MAX, aside, not_json, too_many};
use crate::http::{Http, PathParts};
use crate::v2::request::{self as v2, Checked, Data, InferRequest, Value, Wanted};
use crate::v2::response::Asked;
use crate::v2::token_ids::{INT32, INT64};
use penstock_engine::request::InferenceRequest;
use penstock_engine::served_model::WhenFull;

/// Parameter with the number of a tensor's bytes after the JSON.
const BINARY_SIZE: &str = "binary_data_size";

/// The JSON of a request. Fields such as `model_name` are ignored, because the path names the model.
#[derive(Debug, Deserialize)]
struct Request {
    id: Option<String>,
    parameters: Option<Parameters>,
    inputs: Vec<Input>,
    outputs: Option<Vec<Output>>,
}

#[derive(Debug, Deserialize)]
struct Input {
    name: String,
    datatype: String,
    shape: Vec<i64>,
    parameters: Option<Parameters>,
    data: Option<Elements>,
}

#[derive(Debug, Deserialize)]
struct Output {
    name: String,
    parameters: Option<Parameters>,
}

pub async fn infer(
    State(http): State<Arc<Http>>,
    parts: PathParts,
    headers: HeaderMap,
    body: Body,
) -> Response<Body> {
    match inferred(&http, parts, &headers, body).await {
        Ok(response) => response,
        Err(refusal) => Dialect::V2.refuse(&refusal),
    }
}

async fn inferred(
    http: &Arc<Http>,
    PathParts { model, version }: PathParts,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response<Body>, Refusal> {
    let read = http.read(headers, body).await;
    let context = http.context();
    let mut served = None;
    let preparing = async {
        let served = served.insert(http.service.repository().find(&model, &version)?);
        let json_length = json_length(headers)?;
        let (served, service) = (Arc::clone(served), Arc::clone(&http.service));
        let whole = read?;
        let (large, allowance, whole) = (whole.as_ref().len(), whole.allowance, Bytes::from_owner(whole));
        aside(large, move || {
            let (request, binary) = decode(whole, json_length, allowance, (model, version))?;
            let Checked {
                inputs,
                context,
                asked,
            } = v2::read(request, &served.spec, service.limits(), context)?;
            let call = InferenceRequest {
                served,
                inputs,
                context,
                room: WhenFull::Reject,
            };
            Ok((call, asked, binary))
        })
        .await
    };
    let prepared: Result<(InferenceRequest, Asked, Binary), Refusal> = preparing.await;
    let (call, asked, binary) = http.counted(served.as_deref(), &context, prepared)?;
    let scored = http.service.score(call).await?;
    answer::infer(&asked, &binary, &scored).await
}

fn json_length(headers: &HeaderMap) -> Result<Option<usize>, Refusal> {
    let Some(value) = headers.get(HeaderName::from_static(HEADER_LENGTH)) else {
        return Ok(None);
    };
    match value.to_str().ok().and_then(|length| length.trim().parse().ok()) {
        Some(length) => Ok(Some(length)),
        None => Err(Refusal::invalid(format!(
            "{HEADER_LENGTH} is {value:?}, expected the JSON's bytes"
        ))),
    }
}

/// Decodes the body. `json_length` is the end of the JSON. `allowance` is the memory that the JSON may take
/// beyond its wire length.
pub fn decode(
    body: Bytes,
    json_length: Option<usize>,
    allowance: usize,
    (model, version): (String, String),
) -> Result<(InferRequest, Binary), Refusal> {
    let length = json_length.unwrap_or(body.len());
    if length > body.len() {
        let message = format!(
            "{HEADER_LENGTH} is {length}, but the body has {} bytes",
            body.len()
        );
        return Err(Refusal::invalid(message));
    }
    let mut rest = body;
    let json = rest.split_to(length);
    measure::check(&json, allowance, "data")?;
    let request: Request = serde_json::from_slice(&json).map_err(|e| not_json(&e))?;
    let Request {
        id,
        parameters,
        inputs,
        outputs,
    } = request;
    let (id, Parameters(parameters)) = (id.unwrap_or_default(), parameters.unwrap_or_default());
    let inputs = inputs
        .into_iter()
        .map(|input| tensor(input, &mut rest))
        .collect::<Result<_, _>>()?;
    if !rest.is_empty() {
        return Err(Refusal::invalid(format!(
            "{} bytes follow the JSON that belong to no input; {BINARY_SIZE} says how many do",
            rest.len()
        )));
    }
    let all = flag("binary_data_output", &parameters)?.unwrap_or(false);
    let wanted = |Output { name, parameters }| Wanted {
        name,
        parameters: parameters.unwrap_or_default().0,
    };
    let outputs: Vec<_> = outputs.unwrap_or_default().into_iter().map(wanted).collect();
    let each = outputs
        .iter()
        .map(|output| flag("binary_data", &output.parameters));
    let binary = Binary {
        all,
        each: each.collect::<Result<_, _>>()?,
    };
    Ok((
        InferRequest {
            model,
            version,
            id,
            parameters,
            inputs,
            outputs,
        },
        binary,
    ))
}

fn tensor(input: Input, binary: &mut Bytes) -> Result<v2::Input, Refusal> {
    let Input {
        name,
        datatype,
        shape,
        parameters,
        data,
    } = input;
    let Parameters(parameters) = parameters.unwrap_or_default();
    let size = parameters
        .iter()
        .find(|(key, _)| key == BINARY_SIZE)
        .map(|(_, value)| value);
    let data = match (size, data) {
        (Some(_), Some(_)) => {
            let message = format!("input {name:?} is given twice: as data and as binary data");
            return Err(Refusal::invalid(message));
        }
        (Some(size), None) => {
            let (size, left) = (bytes(size), binary.len());
            let Some(size) = size.filter(|size| *size <= left) else {
                let message =
                    format!("{BINARY_SIZE} of input {name:?} does not fit: {left} bytes follow the JSON");
                return Err(Refusal::invalid(message));
            };
            Data::Raw(binary.split_to(size))
        }
        (None, None) => Data::Absent,
        (None, Some(elements)) => elements.of_type(&name, &datatype)?,
    };
    Ok(v2::Input {
        name,
        datatype,
        shape,
        parameters,
        data,
    })
}

fn bytes(value: &Value) -> Option<usize> {
    match value {
        Value::Int(n) => usize::try_from(*n).ok(),
        Value::Uint(n) => usize::try_from(*n).ok(),
        Value::Bool(_) | Value::Float(_) | Value::Text(_) => None,
    }
}

fn flag(name: &str, parameters: &[(String, Value)]) -> Result<Option<bool>, Refusal> {
    match parameters.iter().find(|(key, _)| key == name) {
        None => Ok(None),
        Some((_, Value::Bool(value))) => Ok(Some(*value)),
        Some((_, value)) => Err(Refusal::invalid(format!(
            "parameter \"{name}\" is {value}, expected a bool"
        ))),
    }
}

/// A JSON object of parameters: strings, numbers and bools.
#[derive(Debug, Default, PartialEq)]
struct Parameters(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Parameters {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Parameters, D::Error> {
        struct ParametersVisitor;
        impl<'de> Visitor<'de> for ParametersVisitor {
            type Value = Parameters;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of parameters")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Parameters, A::Error> {
                let mut all = Vec::new();
                while let Some((name, Parameter(value))) = map.next_entry()? {
                    all.push((name, value));
                }
                Ok(Parameters(all))
            }
        }
        deserializer.deserialize_map(ParametersVisitor)
    }
}

struct Parameter(Value);

impl<'de> Deserialize<'de> for Parameter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Parameter, D::Error> {
        struct ParameterVisitor;
        impl Visitor<'_> for ParameterVisitor {
            type Value = Parameter;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a parameter: a string, a number or a bool")
            }

            fn visit_bool<E: Error>(self, value: bool) -> Result<Parameter, E> {
                Ok(Parameter(Value::Bool(value)))
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Parameter, E> {
                Ok(Parameter(Value::Int(value)))
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<Parameter, E> {
                Ok(Parameter(
                    i64::try_from(value).map_or(Value::Uint(value), Value::Int),
                ))
            }

            fn visit_f64<E: Error>(self, value: f64) -> Result<Parameter, E> {
                Ok(Parameter(Value::Float(value)))
            }

            fn visit_str<E: Error>(self, value: &str) -> Result<Parameter, E> {
                Ok(Parameter(Value::Text(value.to_owned())))
            }
        }
        deserializer.deserialize_any(ParameterVisitor)
    }
}

/// The elements of a tensor, flat or nested as its shape is: the protocol allows both.
#[derive(Debug, Default, PartialEq)]
struct Elements {
    texts: Vec<String>,
    numbers: Vec<i64>,
    /// The first element that is no string: its index and its kind.
    no_text: Option<(usize, &'static str)>,
    /// The index of the first element that is no whole number.
    no_number: Option<usize>,
}

impl Elements {
    /// The elements if they have the type of their tensor.
    fn of_type(self, name: &str, datatype: &str) -> Result<Data, Refusal> {
        match (datatype, self.no_text, self.no_number) {
            ("BYTES", Some((index, kind)), _) => Err(Refusal::invalid(format!(
                "element {index} of input {name:?} is {kind}; BYTES takes strings"
            ))),
            ("BYTES", None, _) => Ok(Data::Texts(self.texts)),
            (INT64 | INT32, _, Some(index)) => Err(Refusal::invalid(format!(
                "element {index} of input {name:?} is no whole number; {datatype} takes whole numbers"
            ))),
            (INT64 | INT32, _, None) => Ok(Data::Numbers(self.numbers)),
            // The tensor is refused for its type.
            _ => Ok(Data::Absent),
        }
    }

    fn len(&self) -> usize {
        self.texts.len() + self.numbers.len()
    }
}

impl<'de> Deserialize<'de> for Elements {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Elements, D::Error> {
        let mut elements = Elements::default();
        Nested(&mut elements).deserialize(deserializer)?;
        Ok(elements)
    }
}

/// Collects nested elements. `serde_json` bounds the recursion at 128 arrays.
struct Nested<'a>(&'a mut Elements);

impl Nested<'_> {
    /// Notes an element that is neither a string nor a whole number.
    fn other(self, kind: &'static str) {
        let index = self.0.len();
        self.0.no_text.get_or_insert((index, kind));
        self.0.no_number.get_or_insert(index);
    }

    fn number(self, number: Option<i64>) {
        let index = self.0.len();
        self.0.no_text.get_or_insert((index, "a number"));
        match number {
            Some(number) => self.0.numbers.push(number),
            None => {
                self.0.no_number.get_or_insert(index);
            }
        }
    }
}

impl<'de> DeserializeSeed<'de> for Nested<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Nested<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of elements")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        if self.0.texts.len() == ELEMENTS_MAX {
            return Err(too_many());
        }
        let index = self.0.len();
        self.0.no_number.get_or_insert(index);
        self.0.texts.push(text.to_owned());
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(Nested(self.0))?.is_some() {}
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        self.other("a bool");
        Ok(())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<(), E> {
        self.number(Some(number));
        Ok(())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<(), E> {
        self.number(i64::try_from(number).ok());
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        self.other("a number");
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.other("null");
        Ok(())
    }
}

#[cfg(test)]
mod tests;
