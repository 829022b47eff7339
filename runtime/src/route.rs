//! Settings of a route, whatever its source and its sink are.

use std::sync::Arc;
use std::time::Duration;

use penstock_core::{Class, InFlightBounds};

/// Settings of one route.
#[derive(Clone, Debug)]
pub struct Route {
    /// Unique among the routes; a metric label.
    pub name: String,
    /// A served model.
    pub model: String,
    /// Its version; empty is the newest.
    pub version: String,
    /// Default class of the records; a header may override it.
    pub class: Class,
    /// Whether a text longer than the model's window is cut; otherwise its record is a dead letter.
    pub truncate: bool,
    /// Field of the text in a JSON value; `None` if the whole value is the text.
    pub field: Option<String>,
    /// Headers that the route honours.
    pub honour: Honour,
    /// Topic for scores.
    pub output: Arc<str>,
    /// Topic for records that cannot be scored.
    pub dead_letter: Arc<str>,
    /// Largest value that is read.
    pub record_bytes_max: usize,
    /// Largest record that is written: key, headers and value together.
    pub written_bytes_max: usize,
    /// Bounds on the records in flight.
    pub bounds: InFlightBounds,
    /// Time between two commits.
    pub commit_interval: Duration,
    /// Commit interval during a backlog; at least `commit_interval`.
    pub commit_interval_max: Duration,
    /// Finished records that cause a commit before the interval ends.
    pub commit_records_max: usize,
    /// Longest time to finish a revoked partition's records before they are given up.
    pub revoke_timeout: Duration,
    /// Bound on topics with metrics of their own; `None` if all topics are configured.
    pub topics_max: Option<usize>,
}

/// Headers that a route honours. Anyone who may write to the topic can set them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Honour {
    /// `model`: another configured model.
    pub model: bool,
    /// `priority`: another class.
    pub priority: bool,
    /// `deadline-ms`: the time after which the score is worthless.
    pub deadline: bool,
}
