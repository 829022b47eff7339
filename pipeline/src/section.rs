//! Tables of a TOML file, read key by key: each key that is not read is unknown.

use std::cell::RefCell;
use std::ops::Range;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use crate::fault::{Fault, unknown};

/// A value with its place.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Placed<T> {
    /// Bytes of the file.
    pub(crate) span: Range<usize>,
    /// The value.
    pub(crate) value: T,
}

type Found<'a> = &'a Spanned<DeValue<'a>>;

/// A table that is being read.
pub(crate) struct Section<'a> {
    /// Its name in messages, such as `step.session`.
    path: String,
    span: Range<usize>,
    table: &'a DeTable<'a>,
    /// Keys that were asked for.
    known: RefCell<Vec<&'static str>>,
}

impl<'a> Section<'a> {
    pub(crate) fn new(path: String, span: Range<usize>, table: &'a DeTable<'a>) -> Section<'a> {
        Section {
            path,
            span,
            table,
            known: RefCell::default(),
        }
    }

    /// A section from a value that has to be a table.
    pub(crate) fn of(path: String, value: Found<'a>) -> Result<Section<'a>, Fault> {
        match value.get_ref() {
            DeValue::Table(table) => Ok(Section::new(path, value.span(), table)),
            other => Err(Fault::new(
                value.span(),
                format!("`{path}` is a table, not {}", kind(other)),
            )),
        }
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    pub(crate) fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// A fault of the whole section.
    pub(crate) fn fault(&self, message: impl Into<String>) -> Fault {
        Fault::new(self.span(), message)
    }

    /// The value of a key.
    pub(crate) fn get(&self, key: &'static str) -> Option<Found<'a>> {
        self.known.borrow_mut().push(key);
        self.table.get(key)
    }

    /// The entries in the order of the file, with the names' places.
    pub(crate) fn entries(&self) -> Vec<(Placed<&'a str>, Found<'a>)> {
        let mut entries: Vec<_> = self
            .table
            .iter()
            .map(|(key, value)| {
                let name = Placed {
                    span: key.span(),
                    value: key.get_ref().as_ref(),
                };
                (name, value)
            })
            .collect();
        entries.sort_by_key(|(name, _)| name.span.start);
        entries
    }

    pub(crate) fn text(&self, key: &'static str) -> Result<Option<Placed<String>>, Fault> {
        self.get(key).map(|value| text(&self.at(key), value)).transpose()
    }

    pub(crate) fn needed_text(&self, key: &'static str) -> Result<Placed<String>, Fault> {
        self.text(key)?.ok_or_else(|| self.missing(key))
    }

    pub(crate) fn missing(&self, key: &str) -> Fault {
        self.fault(format!("`{}` needs `{key}`", self.path))
    }

    /// A whole number within its bounds.
    pub(crate) fn number(
        &self,
        key: &'static str,
        bounds: std::ops::RangeInclusive<i64>,
        default: i64,
    ) -> Result<i64, Fault> {
        let Some(value) = self.get(key) else {
            return Ok(default);
        };
        let number = whole(value).filter(|n| bounds.contains(n));
        number.ok_or_else(|| {
            let (low, high) = (bounds.start(), bounds.end());
            Fault::new(
                value.span(),
                format!("`{}` is a whole number from {low} to {high}", self.at(key)),
            )
        })
    }

    /// A length of time in milliseconds within its bounds.
    pub(crate) fn time(
        &self,
        key: &'static str,
        bounds: std::ops::RangeInclusive<i64>,
    ) -> Result<Option<i64>, Fault> {
        let Some(found) = self.text(key)? else {
            return Ok(None);
        };
        let name = self.at(key);
        let millis = duration(&found.value).ok_or_else(|| {
            Fault::new(
                found.span.clone(),
                format!("`{name}` is a length of time such as 100ms, 30s or 5m"),
            )
        })?;
        if bounds.contains(&millis) {
            return Ok(Some(millis));
        }
        let show =
            |ms: &i64| humantime::format_duration(Duration::from_millis(ms.unsigned_abs())).to_string();
        let (low, high) = (show(bounds.start()), show(bounds.end()));
        Err(Fault::new(
            found.span,
            format!("`{name}` is `{}`, but goes from {low} to {high}", found.value),
        ))
    }

    /// One of several words.
    pub(crate) fn word<T: Copy>(
        &self,
        key: &'static str,
        words: &[(&'static str, T)],
        default: T,
    ) -> Result<T, Fault> {
        let Some(found) = self.text(key)? else {
            return Ok(default);
        };
        let hit = words.iter().find(|(word, _)| *word == found.value);
        hit.map(|(_, value)| *value).ok_or_else(|| {
            let known = words.iter().map(|(word, _)| *word);
            Fault::new(
                found.span,
                unknown(&format!("`{}`", self.at(key)), &found.value, known),
            )
        })
    }

    /// A text or a list of texts.
    pub(crate) fn texts(&self, key: &'static str) -> Result<Option<Vec<Placed<String>>>, Fault> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let name = self.at(key);
        match value.get_ref() {
            DeValue::Array(array) => array
                .iter()
                .map(|v| text(&name, v))
                .collect::<Result<_, _>>()
                .map(Some),
            _ => Ok(Some(vec![text(&name, value)?])),
        }
    }

    pub(crate) fn section(&self, key: &'static str) -> Result<Option<Section<'a>>, Fault> {
        self.get(key)
            .map(|value| Section::of(self.at(key), value))
            .transpose()
    }

    pub(crate) fn list(&self, key: &'static str) -> Result<Option<&'a DeArray<'a>>, Fault> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        list(&self.at(key), value).map(Some)
    }

    /// Name of a key in messages.
    pub(crate) fn at(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    /// Refuses a key that was not read. `later` are keys that another version will read.
    pub(crate) fn finish(&self, later: &[&str]) -> Result<(), Fault> {
        let known = self.known.borrow();
        for (name, _) in self.entries() {
            if known.contains(&name.value) {
                continue;
            }
            let message = if later.contains(&name.value) {
                format!("`{}` is not in this version", self.at(name.value))
            } else {
                unknown("key", name.value, known.iter().copied())
            };
            return Err(Fault::new(name.span, message));
        }
        Ok(())
    }
}

pub(crate) fn text(name: &str, value: Found<'_>) -> Result<Placed<String>, Fault> {
    match value.get_ref() {
        DeValue::String(text) => Ok(Placed {
            span: value.span(),
            value: text.as_ref().to_owned(),
        }),
        other => Err(Fault::new(
            value.span(),
            format!("`{name}` is a text in quotes, not {}", kind(other)),
        )),
    }
}

pub(crate) fn list<'a>(name: &str, value: Found<'a>) -> Result<&'a DeArray<'a>, Fault> {
    match value.get_ref() {
        DeValue::Array(array) => Ok(array),
        other => Err(Fault::new(
            value.span(),
            format!("`{name}` is a list, not {}", kind(other)),
        )),
    }
}

fn whole(value: Found<'_>) -> Option<i64> {
    match value.get_ref() {
        DeValue::Integer(n) => i64::from_str_radix(n.as_str(), n.radix()).ok(),
        _ => None,
    }
}

/// Milliseconds of a length of time.
pub(crate) fn duration(text: &str) -> Option<i64> {
    let duration = humantime::parse_duration(text).ok()?;
    i64::try_from(duration.as_millis()).ok()
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
