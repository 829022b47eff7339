//! Values of records and expressions.

use std::cmp::Ordering;
use std::sync::Arc;

use serde_json::{Map, Number};

use crate::types::{Kind, Type};

/// A value. Clones share what is long.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Absent or null.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// Whole number.
    Int(i64),
    /// Floating-point number.
    Double(f64),
    /// Text.
    String(Arc<str>),
    /// Milliseconds since 1970.
    Timestamp(i64),
    /// Milliseconds.
    Duration(i64),
    /// List.
    List(Arc<[Value]>),
    /// Fields in the order of their type.
    Record(Arc<[Value]>),
    /// JSON object of a field with the type `json`.
    Object(Arc<Map<String, serde_json::Value>>),
}

impl Value {
    /// Whether it is absent or null.
    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    /// Name of its kind in error texts.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Null => "null",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Double(_) => "double",
            Value::String(_) => "string",
            Value::Timestamp(_) => "timestamp",
            Value::Duration(_) => "duration",
            Value::List(_) => "list",
            Value::Record(_) | Value::Object(_) => "object",
        }
    }

    /// The number, if it is one.
    pub fn number(&self) -> Option<f64> {
        match self {
            Value::Int(n) => Some(*n as f64),
            Value::Double(n) => Some(*n),
            _ => None,
        }
    }

    /// A value from JSON whose type is not known before.
    pub fn from_json(json: &serde_json::Value) -> Value {
        match json {
            serde_json::Value::Null => Value::Null,
            serde_json::Value::Bool(b) => Value::Bool(*b),
            serde_json::Value::Number(n) => n
                .as_i64()
                .map(Value::Int)
                .or_else(|| n.as_f64().map(Value::Double))
                .unwrap_or(Value::Null),
            serde_json::Value::String(s) => Value::String(s.as_str().into()),
            serde_json::Value::Array(list) => Value::List(list.iter().map(Value::from_json).collect()),
            serde_json::Value::Object(map) => Value::Object(Arc::new(map.clone())),
        }
    }

    /// The value as JSON. Moments and lengths of time are milliseconds; a number that JSON lacks is null.
    pub fn to_json(&self, of: &Type) -> serde_json::Value {
        match self {
            Value::Null => serde_json::Value::Null,
            Value::Bool(b) => (*b).into(),
            Value::Int(n) | Value::Timestamp(n) | Value::Duration(n) => (*n).into(),
            Value::Double(n) => Number::from_f64(*n).map_or(serde_json::Value::Null, Into::into),
            Value::String(s) => s.as_ref().into(),
            Value::List(list) => {
                let inner = match &of.kind {
                    Kind::List(inner) => inner.as_ref(),
                    _ => of,
                };
                list.iter().map(|value| value.to_json(inner)).collect()
            }
            Value::Record(values) => match &of.kind {
                Kind::Record(fields) => fields
                    .iter()
                    .zip(values.iter())
                    .map(|(field, value)| (field.name.clone(), value.to_json(&field.of)))
                    .collect::<Map<_, _>>()
                    .into(),
                _ => serde_json::Value::Null,
            },
            Value::Object(map) => serde_json::Value::Object(map.as_ref().clone()),
        }
    }

    /// Equality as in CEL: whole and floating-point numbers compare by what they are worth.
    pub fn equals(&self, other: &Value) -> bool {
        match (self, other) {
            (Value::Int(_) | Value::Double(_), Value::Int(_) | Value::Double(_)) => {
                self.order(other) == Some(Ordering::Equal)
            }
            (Value::List(a), Value::List(b)) => {
                a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| a.equals(b))
            }
            (a, b) => a == b,
        }
    }

    /// Order of two values of one kind, or of two numbers; `None` where there is none.
    pub fn order(&self, other: &Value) -> Option<Ordering> {
        match (self, other) {
            (Value::Int(a), Value::Int(b))
            | (Value::Timestamp(a), Value::Timestamp(b))
            | (Value::Duration(a), Value::Duration(b)) => Some(a.cmp(b)),
            (Value::Double(a), Value::Double(b)) => a.partial_cmp(b),
            (Value::Int(a), Value::Double(b)) => order_mixed(*a, *b),
            (Value::Double(a), Value::Int(b)) => order_mixed(*b, *a).map(Ordering::reverse),
            (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
            (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
            _ => None,
        }
    }

    /// Bytes that it takes beside its own place, for the bounds of state.
    pub fn heap_bytes(&self) -> usize {
        match self {
            Value::String(s) => s.len() + 16,
            Value::List(list) | Value::Record(list) => {
                16 + list
                    .iter()
                    .map(|v| size_of::<Value>() + v.heap_bytes())
                    .sum::<usize>()
            }
            // An estimate: objects are not kept by any step of their own accord.
            Value::Object(map) => map.len() * 64,
            _ => 0,
        }
    }
}

/// Order of a whole number and a floating-point one, exact also where `a` has no double of its own.
fn order_mixed(a: i64, b: f64) -> Option<Ordering> {
    if b.is_nan() {
        return None;
    }
    // Two to the power of 63, the first double above every whole number.
    let limit = 9_223_372_036_854_775_808.0;
    if b >= limit {
        return Some(Ordering::Less);
    }
    if b < -limit {
        return Some(Ordering::Greater);
    }
    match a.cmp(&(b.trunc() as i64)) {
        Ordering::Equal => 0.0_f64.partial_cmp(&b.fract()),
        order => Some(order),
    }
}

/// Milliseconds since 1970 of a moment in the form of RFC 3339.
pub fn parse_time(text: &str) -> Option<i64> {
    let moment = time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339).ok()?;
    i64::try_from(moment.unix_timestamp_nanos().div_euclid(1_000_000)).ok()
}
