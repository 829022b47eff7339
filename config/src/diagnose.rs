//! Errors of a configuration with their place: file, line, column, a plain reason, and a suggestion.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::resolve::{Problem, Step};

/// Reason why a configuration is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// The file, if the error is in the file.
    pub file: Option<PathBuf>,
    /// Line and column, both from 1.
    pub position: Option<(usize, usize)>,
    /// The reason.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}:", file.display())?;
            if let Some((line, column)) = self.position {
                write!(f, "{line}:{column}:")?;
            }
            f.write_str(" ")?;
        }
        f.write_str(&self.message)
    }
}

impl ConfigError {
    /// The configuration has no model.
    pub fn no_model() -> ConfigError {
        ConfigError::plain(
            "no model to serve: give --model NAME=DIR_OR_HF_ID, or a [[model]] table in --config".into(),
        )
    }

    /// An error in a key of the model with that index in `file`.
    pub fn at_model(file: &Path, index: usize, key: &'static str, message: String) -> ConfigError {
        ConfigError::at_table(file, "model", index, key, message)
    }

    /// An error of a Kafka client on a route.
    pub fn at_kafka(file: &Path, index: usize, key: &'static str, message: String) -> ConfigError {
        ConfigError::at_table(file, "kafka", index, key, message)
    }

    fn at_table(
        file: &Path,
        table: &'static str,
        index: usize,
        key: &'static str,
        message: String,
    ) -> ConfigError {
        let path = vec![Step::Key(table), Step::Index(index), Step::Key(key)];
        let text = std::fs::read_to_string(file).unwrap_or_default();
        ConfigError::from_problem(Some((file, &text)), Problem { path, message })
    }

    pub(super) fn plain(message: String) -> ConfigError {
        ConfigError {
            file: None,
            position: None,
            message,
        }
    }

    pub(super) fn unreadable(file: &Path, error: &std::io::Error) -> ConfigError {
        ConfigError {
            file: Some(file.to_path_buf()),
            position: None,
            message: error.to_string(),
        }
    }

    /// An error of the parser: syntax, an unknown key, a value of the wrong type.
    pub(super) fn from_toml(file: &Path, text: &str, error: &toml::de::Error) -> ConfigError {
        let message = unknown_key(error.message()).unwrap_or_else(|| one_line(error.message()));
        let position = error.span().map(|span| position(text, span.start));
        ConfigError {
            file: Some(file.to_path_buf()),
            position,
            message,
        }
    }

    /// An error of `resolve`, at its place in the file. An error in a flag, the environment or a default has
    /// no place; the message names the setting.
    pub(super) fn from_problem(source: Option<(&Path, &str)>, problem: Problem) -> ConfigError {
        let Problem { path, message } = problem;
        let found = source.and_then(|(file, text)| Some((file, position(text, find(text, &path)?.start))));
        match found {
            Some((file, position)) => ConfigError {
                file: Some(file.to_path_buf()),
                position: Some(position),
                message,
            },
            None => ConfigError::plain(message),
        }
    }
}

/// Line and column of a byte, both from 1; the column counts characters.
fn position(text: &str, byte: usize) -> (usize, usize) {
    let before = &text[..byte.min(text.len())];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (
        before.matches('\n').count() + 1,
        before[line_start..].chars().count() + 1,
    )
}

/// Span of the value at `path`. Batching that a model inherits is searched in the section it comes from. A
/// default of a route points to the route.
fn find(text: &str, path: &[Step]) -> Option<Range<usize>> {
    let table = DeTable::parse(text).ok()?;
    let inherited = path
        .iter()
        .position(|step| *step == Step::Key("batching"))
        .filter(|at| *at > 0);
    let at = |path: &[Step]| value_at(table.get_ref(), path);
    let route = || {
        path.starts_with(&[Step::Key("kafka")])
            .then(|| at(path.get(..2)?))?
    };
    at(path).or_else(|| at(&path[inherited?..])).or_else(route)
}

fn value_at(table: &DeTable<'_>, path: &[Step]) -> Option<Range<usize>> {
    let (Step::Key(first), rest) = path.split_first()? else {
        return None;
    };
    let mut value = table.get(*first)?;
    for step in rest {
        value = match (step, value.get_ref()) {
            (Step::Key(key), DeValue::Table(table)) => table.get(*key)?,
            (Step::Name(key), DeValue::Table(table)) => table.get(key.as_str())?,
            (Step::Index(index), DeValue::Array(array)) => array.get(*index)?,
            _ => return None,
        };
    }
    Some(value.span())
}

/// Joins the parser's messages of several lines into one.
fn one_line(message: &str) -> String {
    message
        .split('\n')
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join("; ")
}

/// Rewords serde's "unknown field `x`, expected one of `a`, `b`".
fn unknown_key(message: &str) -> Option<String> {
    let rest = message.strip_prefix("unknown field `")?;
    let (key, rest) = rest.split_once('`')?;
    let known: Vec<&str> = rest.split('`').skip(1).step_by(2).collect();
    Some(match nearest(key, &known) {
        Some(near) => format!("unknown key `{key}`; did you mean `{near}`?"),
        None => format!("unknown key `{key}`; known here are {}", known.join(", ")),
    })
}

/// The most similar known key, if one is similar enough.
fn nearest<'a>(key: &str, known: &[&'a str]) -> Option<&'a str> {
    let similarity = |k: &&str| strsim::normalized_damerau_levenshtein(key, k);
    let best = known
        .iter()
        .copied()
        .max_by(|a, b| similarity(a).total_cmp(&similarity(b)))?;
    (similarity(&best) >= 0.6 || best.contains(key) || key.contains(best)).then_some(best)
}
