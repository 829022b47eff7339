//! Faults of a pipeline's file: each has its place and says what would be right.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A fault at a place of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Bytes of the file that are at fault.
    pub span: Range<usize>,
    /// The reason.
    pub message: String,
}

impl Fault {
    /// A fault at `span`.
    pub fn new(span: Range<usize>, message: impl Into<String>) -> Fault {
        Fault {
            span,
            message: message.into(),
        }
    }

    /// The same fault with its line and column in `text`.
    pub fn in_file(self, file: &Path, text: &str) -> FileError {
        FileError {
            file: file.to_path_buf(),
            position: position(text, self.span.start),
            message: self.message,
        }
    }
}

/// Reason why a pipeline's file is refused: `FILE:LINE:COLUMN: reason`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct FileError {
    /// The file.
    pub file: PathBuf,
    /// Line and column, both from 1.
    pub position: (usize, usize),
    /// The reason.
    pub message: String,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (line, column) = self.position;
        write!(f, "{}:{line}:{column}: {}", self.file.display(), self.message)
    }
}

/// Line and column of a byte, both from 1; the column counts characters.
fn position(text: &str, byte: usize) -> (usize, usize) {
    let before = text.get(..byte).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (
        before.matches('\n').count() + 1,
        before[line_start..].chars().count() + 1,
    )
}

/// Says that `name` is unknown, and names the nearest of the known ones, or all of them.
pub(crate) fn unknown<'a>(kind: &str, name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    match nearest(name, &known) {
        Some(near) => format!("unknown {kind} `{name}`; did you mean `{near}`?"),
        None if known.is_empty() => format!("unknown {kind} `{name}`: there is none here"),
        None => format!("unknown {kind} `{name}`; known here are {}", known.join(", ")),
    }
}

/// The most similar known name, if one is similar enough.
fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let similarity = |k: &str| strsim::normalized_damerau_levenshtein(name, k);
    let best = known
        .iter()
        .copied()
        .max_by(|a, b| similarity(a).total_cmp(&similarity(b)))?;
    (similarity(best) >= 0.6).then_some(best)
}
