//! Wire-neutral side of a v2 request: tensors and parameters become inputs and a context.

use bytes::{Buf, Bytes};
use penstock_core::{Rejection, RequestContext};
use penstock_models::{ModelSpec, Output};

use super::description::TEXT;
use super::response::Asked;
use super::token_ids;
use penstock_engine::request::Input as ModelInput;
use penstock_engine::rows::Shape;
use penstock_engine::settings::Limits;

pub use super::parameters::Value;
use super::parameters::{self, Wishes};

/// Valid form of the tensors, for errors.
const EXPECTED: &str =
    "expected \"text\", BYTES, shape [n] or [n,1]; or token ids as \"input_ids\", INT64, shape [n,length]";

/// A request from gRPC or HTTP.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InferRequest {
    /// The model's name.
    pub model: String,
    /// Its version, or empty.
    pub version: String,
    /// Returned in the response.
    pub id: String,
    /// Parameters of the request.
    pub parameters: Vec<(String, Value)>,
    /// The tensors.
    pub inputs: Vec<Input>,
    /// Requested outputs; empty means all.
    pub outputs: Vec<Wanted>,
}

/// An input tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    /// Its name.
    pub name: String,
    /// Element type: `BYTES`, or `INT64` and `INT32` of token ids.
    pub datatype: String,
    /// Shape: `[n]` or `[n,1]`, or `[n,length]` of token ids.
    pub shape: Vec<i64>,
    /// Parameters of the tensor.
    pub parameters: Vec<(String, Value)>,
    /// The elements.
    pub data: Data,
}

/// The elements of an input tensor.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// The binary form: each element after its length in four bytes, little-endian.
    Raw(Bytes),
    /// Separate elements, from protobuf.
    Elements(Vec<Bytes>),
    /// Separate UTF-8 elements, from JSON.
    Texts(Vec<String>),
    /// Whole numbers.
    Numbers(Vec<i64>),
    /// No elements, or elements of a type that no input has.
    Absent,
}

/// A requested output.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// Its name.
    pub name: String,
    /// Parameters of the output.
    pub parameters: Vec<(String, Value)>,
}

/// A request that fits its model.
#[derive(Debug)]
pub struct Checked {
    /// The inputs.
    pub inputs: Vec<ModelInput>,
    /// Context with the parameters of the request.
    pub context: RequestContext,
    /// Form of the answer.
    pub asked: Asked,
}

/// Checks a request against the specification of its model.
pub fn read(
    request: InferRequest,
    spec: &ModelSpec,
    limits: &Limits,
    context: RequestContext,
) -> Result<Checked, Rejection> {
    let InferRequest {
        id,
        parameters,
        inputs,
        outputs,
        ..
    } = request;
    let wishes = parameters::read(parameters, spec)?;
    let Wishes {
        class,
        timeout,
        truncate,
        normalize,
        dimensions,
        mark_final,
    } = wishes;
    let outputs = wanted(outputs, spec)?;
    let inputs = tensors(inputs, limits.max_request_texts)?;
    let shape = Shape {
        normalize: normalize.unwrap_or(spec.normalize),
        dimensions,
    };
    let context = RequestContext {
        class,
        truncate,
        ..context
    };
    Ok(Checked {
        inputs,
        context: context.due(timeout.map(|timeout| context.received + timeout)),
        asked: Asked {
            id,
            outputs,
            shape,
            mark_final,
        },
    })
}

fn wanted(outputs: Vec<Wanted>, spec: &ModelSpec) -> Result<Vec<(String, &'static Output)>, Rejection> {
    let known = spec.task.outputs();
    if outputs.is_empty() {
        let defaults = known.iter().filter(|output| output.is_default);
        return Ok(defaults.map(|output| (output.name.to_owned(), output)).collect());
    }
    let mut asked: Vec<(String, &Output)> = Vec::with_capacity(known.len());
    for Wanted { name, parameters } in outputs {
        parameters::check_output(&name, &parameters)?;
        let Some(output) = known
            .iter()
            .find(|output| output.name.eq_ignore_ascii_case(&name))
        else {
            let names: Vec<_> = known.iter().map(|output| output.name).collect();
            return Err(Rejection::Invalid(format!(
                "unknown output \"{}\"; the model has {}",
                short(&name),
                names.join(", ")
            )));
        };
        // A duplicate output would be computed and sent as often as a request names it.
        if asked.iter().any(|(_, other)| other.name == output.name) {
            return Err(Rejection::Invalid(format!(
                "output \"{name}\" is asked for twice"
            )));
        }
        asked.push((name, output));
    }
    Ok(asked)
}

/// Reads the tensors: either a text tensor, or token ids with or without a mask.
fn tensors(inputs: Vec<Input>, texts_max: usize) -> Result<Vec<ModelInput>, Rejection> {
    let (mut text, mut ids, mut mask) = (None, None, None);
    for input in inputs {
        parameters::check_input(&input.name, &input.parameters)?;
        let (known, name) = [
            (&mut text, TEXT),
            (&mut ids, token_ids::INPUT_IDS),
            (&mut mask, token_ids::ATTENTION_MASK),
        ]
        .into_iter()
        .find(|(_, name)| input.name.eq_ignore_ascii_case(name))
        .ok_or_else(|| Rejection::Invalid(format!("unknown input \"{}\"; {EXPECTED}", short(&input.name))))?;
        if known.replace(input).is_some() {
            return Err(Rejection::Invalid(format!("input \"{name}\" is given twice")));
        }
    }
    match (text, ids, mask) {
        (Some(text), None, None) => {
            let texts = texts(text, texts_max)?;
            Ok(texts.into_iter().map(ModelInput::Text).collect())
        }
        (None, Some(ids), mask) => token_ids::read(ids, mask, texts_max),
        (None, None, None) => Err(Rejection::Invalid(format!(
            "the request holds no input; {EXPECTED}"
        ))),
        _ => Err(Rejection::Invalid(format!(
            "the request mixes inputs that exclude each other; {EXPECTED}"
        ))),
    }
}

fn texts(input: Input, texts_max: usize) -> Result<Vec<String>, Rejection> {
    let Input {
        name,
        datatype,
        shape,
        data,
        ..
    } = input;
    if datatype != "BYTES" {
        return Err(Rejection::Invalid(format!(
            "input \"{name}\" has datatype \"{}\"; {EXPECTED}",
            short(&datatype)
        )));
    }
    let n = count(&name, &shape)?;
    // Checked before the elements are split: an empty one costs four bytes on the wire and 24 here.
    check_texts(n, texts_max)?;
    match data {
        Data::Raw(raw) => raw_texts(&name, raw, n),
        Data::Elements(elements) => {
            check_count(&name, elements.len(), n)?;
            elements
                .iter()
                .enumerate()
                .map(|(i, element)| utf8(&name, i, element))
                .collect()
        }
        Data::Texts(texts) => {
            check_count(&name, texts.len(), n)?;
            Ok(texts)
        }
        Data::Numbers(_) | Data::Absent => Err(Rejection::Invalid(format!(
            "input \"{name}\" holds no BYTES elements; {EXPECTED}"
        ))),
    }
}

fn count(name: &str, shape: &[i64]) -> Result<usize, Rejection> {
    match *shape {
        [n] | [n, 1] if n > 0 => Ok(usize::try_from(n).unwrap_or(usize::MAX)),
        [0] | [0, 1] => Err(Rejection::Invalid(format!(
            "input \"{name}\" holds no text; send at least one"
        ))),
        _ => {
            let cut = &shape[..shape.len().min(8)];
            Err(Rejection::Invalid(format!(
                "input \"{name}\" has shape {cut:?}; {EXPECTED}"
            )))
        }
    }
}

/// Refuses more inputs than a request may hold.
pub(super) fn check_texts(n: usize, texts_max: usize) -> Result<(), Rejection> {
    if n <= texts_max {
        return Ok(());
    }
    Err(Rejection::Invalid(format!(
        "the request holds {n} texts, more than max_request_texts = {texts_max}; send several requests"
    )))
}

pub(super) fn check_count(name: &str, elements: usize, n: usize) -> Result<(), Rejection> {
    if elements == n {
        return Ok(());
    }
    Err(Rejection::Invalid(format!(
        "input \"{name}\" holds {elements} elements, its shape says {n}"
    )))
}

fn raw_texts(name: &str, mut raw: Bytes, n: usize) -> Result<Vec<String>, Rejection> {
    // Each element takes at least four bytes, so `n` is at most the number of sent elements.
    let mut texts = Vec::with_capacity(n.min(raw.len() / 4));
    while raw.has_remaining() {
        let i = texts.len();
        if i == n {
            return Err(Rejection::Invalid(format!(
                "input \"{name}\" holds {} bytes more than the {n} elements of its shape",
                raw.len()
            )));
        }
        let length = raw.try_get_u32_le().map_err(|_| cut_off(name, i, 4, raw.len()))? as usize;
        if length > raw.len() {
            return Err(cut_off(name, i, length, raw.len()));
        }
        texts.push(utf8(name, i, &raw.split_to(length))?);
    }
    check_count(name, texts.len(), n)?;
    Ok(texts)
}

fn cut_off(name: &str, i: usize, length: usize, left: usize) -> Rejection {
    Rejection::Invalid(format!(
        "element {i} of input \"{name}\" is cut off: {length} bytes are announced, {left} follow; \
         each element is its length in 4 bytes, little-endian, and then its bytes"
    ))
}

fn utf8(name: &str, i: usize, bytes: &[u8]) -> Result<String, Rejection> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.to_owned()),
        Err(e) => Err(Rejection::Invalid(format!(
            "element {i} of input \"{name}\" is not UTF-8 at byte {}",
            e.valid_up_to()
        ))),
    }
}

/// A client's value in an error, cut to a recognisable length.
pub(super) fn short(word: &str) -> &str {
    &word[..word.floor_char_boundary(64)]
}

#[cfg(test)]
mod tests;
