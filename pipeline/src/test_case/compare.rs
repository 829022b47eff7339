//! Expected and found rows of a test, with plain words for each difference.

use std::ops::Range;
use std::path::Path;

use serde_json::{Map, Value as Json};

use super::TestCase;
use crate::fault::{Fault, FileError};
use crate::graph::{Pipeline, SinkSpec};
use crate::machine::{DeadLetter, Output};
use crate::types::{Kind, Type};
use crate::value::parse_time;

/// A way in which a test differs from what is expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    span: Range<usize>,
    message: String,
}

impl Mismatch {
    /// The difference with its place in the file.
    pub fn in_file(self, file: &Path, text: &str) -> FileError {
        Fault::new(self.span, self.message).in_file(file, text)
    }
}

type Expected = [(Range<usize>, Map<String, Json>)];

pub(super) fn compare_rows(
    pipeline: &Pipeline,
    case: &TestCase,
    sink: usize,
    spec: &SinkSpec,
    expected: &Expected,
    found: &[&Output],
    mismatches: &mut Vec<Mismatch>,
) {
    let name = &pipeline.nodes[sink].name;
    let rows: Vec<Map<String, Json>> = found.iter().map(|output| row(spec, output)).collect();
    let mut differ = |span: &Range<usize>, message: String| {
        mismatches.push(Mismatch {
            span: span.clone(),
            message,
        });
    };
    for (place, (span, wanted)) in expected.iter().enumerate() {
        let Some(row) = rows.get(place) else {
            differ(span, format!("`{name}`: row {} is missing", place + 1));
            continue;
        };
        for (column, value) in wanted {
            let of = spec
                .columns
                .iter()
                .find(|(name, _)| name == column)
                .map(|(_, e)| &e.of);
            let value = of.map_or_else(|| value.clone(), |of| as_written(value, of));
            let got = row.get(column).unwrap_or(&Json::Null);
            if !same(&value, got) {
                let message = format!("`{name}`, row {}: `{column}` is {got}, not {value}", place + 1);
                differ(span, message);
            }
        }
    }
    for row in rows.iter().skip(expected.len()) {
        let row = Json::Object(row.clone());
        differ(&case.span, format!("`{name}`: a row too many: {row}"));
    }
}

pub(super) fn compare_letters(
    pipeline: &Pipeline,
    case: &TestCase,
    found: &[DeadLetter],
    mismatches: &mut Vec<Mismatch>,
) {
    let mut differ = |span: &Range<usize>, message: String| {
        mismatches.push(Mismatch {
            span: span.clone(),
            message,
        });
    };
    for (place, (span, wanted)) in case.dead_letters.iter().enumerate() {
        let Some(letter) = found.get(place) else {
            differ(span, format!("dead letter {} is missing", place + 1));
            continue;
        };
        for (key, value) in wanted {
            let got: Json = match key.as_str() {
                "reason" => letter.reason.name().into(),
                "node" => pipeline.nodes[letter.node].name.as_ref().into(),
                _ => letter.origin.offset.into(),
            };
            if got != *value {
                let message = format!(
                    "dead letter {}: `{key}` is {got}, not {value}: {}",
                    place + 1,
                    letter.detail
                );
                differ(span, message);
            }
        }
    }
    for letter in found.iter().skip(case.dead_letters.len()) {
        let node = &pipeline.nodes[letter.node].name;
        let message = format!(
            "a dead letter that is not expected: {} at `{node}`: {}",
            letter.reason, letter.detail
        );
        differ(&case.span, message);
    }
}

/// A row as JSON, by the names of its columns.
pub(crate) fn row(spec: &SinkSpec, output: &Output) -> Map<String, Json> {
    let columns = spec.columns.iter().zip(&output.row);
    columns
        .map(|((name, expression), value)| (name.clone(), value.to_json(&expression.of)))
        .collect()
}

/// Moments and lengths of time may be written as texts.
fn as_written(value: &Json, of: &Type) -> Json {
    let written = match (&of.kind, value) {
        (Kind::Timestamp, Json::String(text)) => parse_time(text),
        (Kind::Duration, Json::String(text)) => crate::section::duration(text),
        _ => None,
    };
    written.map_or_else(|| value.clone(), Into::into)
}

/// Numbers are the same by what they are worth; whatever else has to be equal.
fn same(a: &Json, b: &Json) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(x), Some(y)) => (x - y).abs() <= 1e-9 * x.abs().max(y.abs()),
        _ => a == b,
    }
}
