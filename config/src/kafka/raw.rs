//! The mirror of a `[[kafka]]` table. Properties of the client come quoted, as `"sasl.password"`, or as the
//! nested tables that an unquoted `sasl.password` makes.

use std::num::NonZeroUsize;

use penstock_core::Class;
use serde::{Deserialize, Deserializer};

use super::Delivery;
use crate::secret::Secret;
use crate::values::{Size, Time};

/// One `[[kafka]]` table.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Kafka {
    pub(super) name: String,
    pub(super) brokers: String,
    pub(super) group: String,
    pub(super) input: Option<Vec<String>>,
    pub(super) input_pattern: Option<String>,
    pub(super) output: String,
    pub(super) dead_letter: String,
    pub(super) model: String,
    pub(super) version: Option<String>,
    pub(super) field: Option<String>,
    pub(super) delivery: Option<Delivery>,
    pub(super) class: Option<ClassName>,
    pub(super) consumers: Option<NonZeroUsize>,
    pub(super) commit_interval: Option<Time>,
    pub(super) commit_interval_max: Option<Time>,
    pub(super) commit_records_max: Option<NonZeroUsize>,
    pub(super) in_flight_records_max: Option<NonZeroUsize>,
    pub(super) in_flight_bytes_max: Option<Size>,
    pub(super) partition_in_flight_records_max: Option<NonZeroUsize>,
    pub(super) partition_in_flight_bytes_max: Option<Size>,
    pub(super) record_bytes_max: Option<Size>,
    pub(super) revoke_timeout: Option<Time>,
    pub(super) transaction_timeout: Option<Time>,
    #[serde(default)]
    pub(super) honour: Vec<Honoured>,
    pub(super) truncate: Option<bool>,
    pub(super) topics_max: Option<NonZeroUsize>,
    #[serde(default)]
    pub(super) client: Properties,
    #[serde(default)]
    pub(super) client_files: Properties,
    #[serde(default)]
    pub(super) client_env: Properties,
}

/// A header that a route may honour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) enum Honoured {
    Model,
    Priority,
    Deadline,
}

impl Honoured {
    pub(super) const ALL: [Honoured; 3] = [Honoured::Model, Honoured::Priority, Honoured::Deadline];

    pub(super) fn name(self) -> &'static str {
        match self {
            Honoured::Model => "model",
            Honoured::Priority => "priority",
            Honoured::Deadline => "deadline",
        }
    }
}

/// A class by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct ClassName(pub(super) Class);

/// Parses the name of one of `all`.
fn named<T: Copy, const N: usize>(
    what: &str,
    s: &str,
    all: [T; N],
    name: fn(T) -> &'static str,
) -> Result<T, String> {
    all.into_iter().find(|known| name(*known) == s).ok_or_else(|| {
        let known: Vec<&str> = all.into_iter().map(name).collect();
        format!("unknown {what} `{s}`; known are {}", known.join(", "))
    })
}

impl TryFrom<String> for Honoured {
    type Error = String;

    fn try_from(s: String) -> Result<Honoured, String> {
        named("header to honour", &s, Honoured::ALL, Honoured::name)
    }
}

impl TryFrom<String> for ClassName {
    type Error = String;

    fn try_from(s: String) -> Result<ClassName, String> {
        named("class", &s, Class::ALL, Class::name).map(ClassName)
    }
}

impl TryFrom<String> for Delivery {
    type Error = String;

    fn try_from(s: String) -> Result<Delivery, String> {
        named("delivery", &s, Delivery::ALL, Delivery::name)
    }
}

impl<'de> Deserialize<'de> for Delivery {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Delivery, D::Error> {
        let s = String::deserialize(deserializer)?;
        Delivery::try_from(s).map_err(serde::de::Error::custom)
    }
}

/// Properties of librdkafka, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Properties(pub(super) Vec<Property>);

/// One property.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Property {
    /// The keys that lead to it.
    pub(super) path: Vec<String>,
    /// Its value as a string, or the kind of a value that is no property. It is hidden because the name is
    /// checked for secrets later.
    pub(super) value: Result<Secret<String>, &'static str>,
}

impl Property {
    /// Its name in librdkafka.
    pub(super) fn name(&self) -> String {
        self.path.join(".")
    }
}

impl<'de> Deserialize<'de> for Properties {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Properties, D::Error> {
        let written = toml::Value::deserialize(deserializer)?;
        let toml::Value::Table(table) = written else {
            // The message omits the value, which serde would include: it may be a secret.
            return Err(serde::de::Error::custom(
                "a table of properties is expected here, such as { \"client.id\" = \"reviews\" }",
            ));
        };
        let mut properties = Properties::default();
        properties.flatten(&[], table);
        Ok(properties)
    }
}

impl Properties {
    fn flatten(&mut self, above: &[String], table: toml::Table) {
        for (key, value) in table {
            let mut path = above.to_vec();
            path.push(key);
            let text = match value {
                toml::Value::Table(inner) => {
                    self.flatten(&path, inner);
                    continue;
                }
                toml::Value::String(text) => Ok(text),
                toml::Value::Integer(number) => Ok(number.to_string()),
                toml::Value::Float(number) => Ok(number.to_string()),
                toml::Value::Boolean(truth) => Ok(truth.to_string()),
                toml::Value::Datetime(_) => Err("a date"),
                toml::Value::Array(_) => Err("an array"),
            };
            let value = text.map(Secret::new);
            self.0.push(Property { path, value });
        }
    }
}
