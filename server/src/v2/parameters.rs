//! Parameters of a v2 request: their meanings, and clear errors for unknown ones.

use std::fmt;
use std::time::Duration;

use penstock_core::{Class, Rejection};
use penstock_models::{Form, ModelSpec};

use super::request::short;

/// The supported parameters.
const KNOWN: &str = "priority, timeout, truncate, normalize, dimensions";

/// Parameters that Triton's clients send unasked, or that have no meaning for a stateless model. Triton
/// accepts them from any client; refusing them would break clients that work with it.
const TOLERATED: [&str; 4] = [
    "binary_data_output",
    "sequence_id",
    "sequence_start",
    "sequence_end",
];

/// A parameter's value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A bool.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// An integer that may exceed `i64`.
    Uint(u64),
    /// Any other number.
    Float(f64),
    /// A string.
    Text(String),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Bool(value) => write!(f, "{value}"),
            Value::Int(value) => write!(f, "{value}"),
            Value::Uint(value) => write!(f, "{value}"),
            Value::Float(value) => write!(f, "{value}"),
            Value::Text(value) => write!(f, "\"{}\"", short(value)),
        }
    }
}

/// Options from the parameters of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wishes {
    pub class: Class,
    pub timeout: Option<Duration>,
    pub truncate: bool,
    pub normalize: Option<bool>,
    pub dimensions: Option<usize>,
    pub mark_final: bool,
}

/// Reads a request's parameters.
pub fn read(parameters: Vec<(String, Value)>, spec: &ModelSpec) -> Result<Wishes, Rejection> {
    let mut wishes = Wishes {
        class: Class::Interactive,
        timeout: None,
        truncate: true,
        normalize: None,
        dimensions: None,
        mark_final: false,
    };
    for (name, value) in parameters {
        match name.as_str() {
            "priority" => wishes.class = priority(&value)?,
            "timeout" => wishes.timeout = timeout(&value)?,
            "truncate" => wishes.truncate = boolean(&name, &value)?,
            "normalize" => {
                for_embeddings(&name, spec)?;
                wishes.normalize = Some(boolean(&name, &value)?);
            }
            "dimensions" => {
                for_embeddings(&name, spec)?;
                wishes.dimensions = Some(dimensions(&value, spec.hidden)?);
            }
            "triton_enable_empty_final_response" => wishes.mark_final = boolean(&name, &value)?,
            other if TOLERATED.contains(&other) => {}
            other => {
                let other = short(other);
                return Err(Rejection::Invalid(format!(
                    "unknown parameter \"{other}\"; known are {KNOWN}"
                )));
            }
        }
    }
    Ok(wishes)
}

/// Triton's numbers: 0 is the model's default, 1 the highest priority, a larger number is less urgent.
fn priority(value: &Value) -> Result<Class, Rejection> {
    match value {
        Value::Text(name) => Class::ALL
            .into_iter()
            .find(|c| c.name() == name)
            .ok_or_else(|| wrong("priority", value, PRIORITY)),
        _ => match whole(value) {
            Some(0 | 1) => Ok(Class::Interactive),
            Some(_) => Ok(Class::Bulk),
            None => Err(wrong("priority", value, PRIORITY)),
        },
    }
}

const PRIORITY: &str =
    "\"interactive\", \"bulk\" or Triton's number: 0 and 1 are interactive, 2 and more bulk";

/// Microseconds, as in Triton; 0 is none.
fn timeout(value: &Value) -> Result<Option<Duration>, Rejection> {
    let micros = whole(value).ok_or_else(|| wrong("timeout", value, "microseconds as a whole number"))?;
    Ok((micros > 0).then(|| Duration::from_micros(micros)))
}

fn dimensions(value: &Value, hidden: usize) -> Result<usize, Rejection> {
    let dimensions = whole(value).and_then(|d| usize::try_from(d).ok());
    dimensions
        .filter(|d| (1..=hidden).contains(d))
        .ok_or_else(|| wrong("dimensions", value, &format!("a whole number from 1 to {hidden}")))
}

fn for_embeddings(name: &str, spec: &ModelSpec) -> Result<(), Rejection> {
    if spec.task.has(Form::Vector) {
        return Ok(());
    }
    Err(Rejection::Invalid(format!(
        "parameter \"{name}\" is for embedding models, the task of this one is {}",
        spec.task.name()
    )))
}

fn whole(value: &Value) -> Option<u64> {
    match value {
        Value::Int(value) => u64::try_from(*value).ok(),
        Value::Uint(value) => Some(*value),
        Value::Bool(_) | Value::Float(_) | Value::Text(_) => None,
    }
}

fn boolean(name: &str, value: &Value) -> Result<bool, Rejection> {
    match value {
        Value::Bool(value) => Ok(*value),
        _ => Err(wrong(name, value, "a bool")),
    }
}

fn wrong(name: &str, value: &Value, expected: &str) -> Rejection {
    Rejection::Invalid(format!("parameter \"{name}\" is {value}, expected {expected}"))
}

/// Checks the parameters of an input tensor.
pub fn check_input(tensor: &str, parameters: &[(String, Value)]) -> Result<(), Rejection> {
    parameters.iter().try_for_each(|(name, _)| match name.as_str() {
        "binary_data_size" => Ok(()),
        other => Err(of_tensor("input", tensor, other, "binary_data_size")),
    })
}

/// Checks the parameters of a requested output.
pub fn check_output(tensor: &str, parameters: &[(String, Value)]) -> Result<(), Rejection> {
    parameters
        .iter()
        .try_for_each(|(name, value)| match name.as_str() {
            "binary_data" => boolean(name, value).map(|_| ()),
            "classification" if whole(value) == Some(0) => Ok(()),
            "classification" => Err(Rejection::Invalid(format!(
                "output \"{}\" asks for Triton's classification strings, which are not given; ask for \
             the outputs label, score or probabilities",
                short(tensor)
            ))),
            other => Err(of_tensor("output", tensor, other, "binary_data")),
        })
}

fn of_tensor(kind: &str, tensor: &str, parameter: &str, known: &str) -> Rejection {
    let (tensor, parameter) = (short(tensor), short(parameter));
    if parameter.starts_with("shared_memory") {
        return Rejection::Invalid(format!(
            "{kind} \"{tensor}\" is in shared memory, which the server does not read or write; \
             send the data in the request"
        ));
    }
    Rejection::Invalid(format!(
        "unknown parameter \"{parameter}\" of {kind} \"{tensor}\"; known is {known}"
    ))
}
