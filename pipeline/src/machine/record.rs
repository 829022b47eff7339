//! From the bytes of a record to the typed fields of its source.

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::event::{Lost, Reason, Record};
use crate::expression::LIST_MAX;
use crate::graph::{Format, SourceSpec};
use crate::types::{Field, Kind, Type};
use crate::value::{Value, parse_time};

/// Reads the records of one source.
#[derive(Debug)]
pub(super) struct Decoder {
    places: HashMap<String, usize>,
}

impl Decoder {
    pub(super) fn new(spec: &SourceSpec) -> Decoder {
        let fields = spec.fields.iter().flatten().enumerate();
        Decoder {
            places: fields.map(|(place, field)| (field.name.clone(), place)).collect(),
        }
    }

    /// The record's value and its event time.
    pub(super) fn decode(&self, spec: &SourceSpec, record: &Record<'_>) -> Result<(Value, i64), Lost> {
        let Some(fields) = &spec.fields else {
            let json: serde_json::Map<String, serde_json::Value> =
                serde_json::from_slice(record.value).map_err(|e| Lost::new(Reason::Value, e.to_string()))?;
            let time = check_time(spec, record, None)?;
            return Ok((Value::Object(json.into()), time));
        };
        let values = match spec.format {
            Format::Json => self.object(spec, fields, record.value)?,
            Format::Raw => {
                let text = std::str::from_utf8(record.value)
                    .map_err(|e| Lost::new(Reason::Value, format!("the record is not UTF-8: {e}")))?;
                vec![Value::String(text.into())]
            }
        };
        let own = spec.event_time.and_then(|place| match values.get(place) {
            Some(Value::Timestamp(time)) => Some(*time),
            _ => None,
        });
        let time = check_time(spec, record, own)?;
        Ok((Value::Record(values.into()), time))
    }

    fn object(&self, spec: &SourceSpec, fields: &[Field], bytes: &[u8]) -> Result<Vec<Value>, Lost> {
        let failed = Cell::new(None);
        let mut reader = serde_json::Deserializer::from_slice(bytes);
        let seed = Object {
            places: &self.places,
            fields,
            failed: &failed,
        };
        let read = seed
            .deserialize(&mut reader)
            .and_then(|values| reader.end().map(|()| values));
        read.map_err(|error| {
            let is_time = failed.get().is_some() && failed.get() == spec.event_time;
            let reason = if is_time { Reason::EventTime } else { Reason::Value };
            Lost::new(reason, error.to_string())
        })
    }
}

/// The event time, unless it is too far ahead of the record's timestamp.
fn check_time(spec: &SourceSpec, record: &Record<'_>, own: Option<i64>) -> Result<i64, Lost> {
    let Some(time) = own.or(record.timestamp) else {
        return Err(Lost::new(
            Reason::EventTime,
            "the record has no event time and no timestamp",
        ));
    };
    if let Some(timestamp) = record.timestamp
        && time.saturating_sub(timestamp) > spec.future_max
    {
        let detail = format!(
            "event time {time} is {} ms ahead of the record's timestamp, {} are allowed",
            time.saturating_sub(timestamp),
            spec.future_max
        );
        return Err(Lost::new(Reason::Future, detail));
    }
    Ok(time)
}

/// Reads an object into the values of its declared fields; others are skipped.
struct Object<'a> {
    places: &'a HashMap<String, usize>,
    fields: &'a [Field],
    /// Field at which reading has failed.
    failed: &'a Cell<Option<usize>>,
}

impl<'de> DeserializeSeed<'de> for Object<'_> {
    type Value = Vec<Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Object<'_> {
    type Value = Vec<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut values = vec![Value::Null; self.fields.len()];
        while let Some(place) = map.next_key_seed(Name(self.places))? {
            let Some(place) = place else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let field = &self.fields[place];
            self.failed.set(Some(place));
            values[place] = map.next_value_seed(Typed {
                name: &field.name,
                of: &field.of,
            })?;
            self.failed.set(None);
        }
        for (place, (value, field)) in values.iter().zip(self.fields).enumerate() {
            if value.is_null() && !field.of.optional {
                self.failed.set(Some(place));
                return Err(A::Error::custom(format!("field `{}` is missing", field.name)));
            }
        }
        Ok(values)
    }
}

/// Reads a name as its place among the fields.
struct Name<'a>(&'a HashMap<String, usize>);

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.get(name).copied())
    }
}

/// Reads a value of a declared type.
#[derive(Clone, Copy)]
struct Typed<'a> {
    name: &'a str,
    of: &'a Type,
}

impl Typed<'_> {
    fn wrong<E: Error>(&self, found: &str) -> E {
        E::custom(format!(
            "field `{}` is {found}, but a {} is declared",
            self.name, self.of
        ))
    }
}

impl<'de> DeserializeSeed<'de> for Typed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        if self.of.kind == Kind::Json {
            let json: serde_json::Value = serde::Deserialize::deserialize(deserializer)?;
            return Ok(Value::from_json(&json));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Typed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a {} in field `{}`", self.of, self.name)
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        if self.of.optional {
            Ok(Value::Null)
        } else {
            Err(self.wrong("null"))
        }
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        match self.of.kind {
            Kind::Bool => Ok(Value::Bool(value)),
            _ => Err(self.wrong("a bool")),
        }
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        match self.of.kind {
            Kind::Int => Ok(Value::Int(value)),
            Kind::Double => Ok(Value::Double(value as f64)),
            Kind::Timestamp => Ok(Value::Timestamp(value)),
            _ => Err(self.wrong("a whole number")),
        }
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        match i64::try_from(value) {
            Ok(value) => self.visit_i64(value),
            Err(_) => self.visit_f64(value as f64),
        }
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        match self.of.kind {
            Kind::Double => Ok(Value::Double(value)),
            _ => Err(self.wrong("a number with a fraction, or too large")),
        }
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        match self.of.kind {
            Kind::String => Ok(Value::String(value.into())),
            Kind::Timestamp => parse_time(value)
                .map(Value::Timestamp)
                .ok_or_else(|| self.wrong(&format!("`{value}`, which is no RFC 3339 time"))),
            _ => Err(self.wrong("a string")),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let Kind::List(inner) = &self.of.kind else {
            return Err(self.wrong("a list"));
        };
        let seed = Typed {
            name: self.name,
            of: inner,
        };
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(seed)? {
            if values.len() == LIST_MAX {
                return Err(A::Error::custom(format!(
                    "field `{}` has more than {LIST_MAX} elements",
                    self.name
                )));
            }
            values.push(value);
        }
        Ok(Value::List(values.into()))
    }

    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<Value, A::Error> {
        Err(self.wrong("an object"))
    }
}
