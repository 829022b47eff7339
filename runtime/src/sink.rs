//! The seam to the place that answers are written to, together with the positions of the source.
//!
//! The commit takes the positions: a sink that stores both atomically makes the route exactly once.

use std::time::Duration;

use crate::record::Outgoing;
use crate::trouble::Trouble;

/// A place for output records and the positions of the source.
pub trait Sink {
    /// Membership of the source that its positions come with.
    type Group;

    /// Writes a record that was read from partition `from`; the order within it is kept. A refusal is
    /// reported with `number`.
    fn write(&mut self, record: Outgoing, from: i32, number: usize) -> Result<(), Trouble>;

    /// Writes a record so that an error concerns no other record.
    fn write_apart(&mut self, record: Outgoing, from: i32, number: usize) -> Result<(), Trouble>;

    /// Records written since the last commit, if there are any.
    fn open(&self) -> Option<Open>;

    /// Whether an abort undoes all records since the last commit.
    fn is_atomic(&self) -> bool;

    /// Commits all written records, possibly none, and the positions. Returns the time since the first record
    /// was written.
    fn commit(&mut self, positions: Positions<Self::Group>) -> Result<Duration, Trouble>;

    /// Gives up all records since the last commit, as far as possible.
    fn abort(&mut self) -> Result<Aborted, Trouble>;
}

/// Records written since the last commit.
#[derive(Clone, Copy, Debug)]
pub struct Open {
    /// Time since the first of them was written.
    pub lasted: Duration,
    /// Their number.
    pub records: usize,
}

/// Positions to commit.
#[derive(Clone, Debug)]
pub struct Positions<G> {
    /// Membership of the source, as of now.
    pub group: G,
    /// The positions.
    pub partitions: Vec<NextPosition>,
}

/// Position of one partition.
#[derive(Clone, Debug)]
pub struct NextPosition {
    /// The topic.
    pub topic: String,
    /// The partition's number.
    pub partition: i32,
    /// Offset of the next record to read.
    pub offset: i64,
    /// Leader epoch of the record before it.
    pub leader_epoch: Option<i32>,
    /// Identity of the log, stored with the position.
    pub identity: Option<String>,
}

/// Result of an abort.
#[derive(Clone, Debug)]
pub struct Aborted {
    /// Time since the first record was written.
    pub lasted: Duration,
    /// Records that were refused for their content.
    pub refused: Vec<Refused>,
}

/// A record that was refused for its content, so that a retry would be refused too.
#[derive(Clone, Debug)]
pub struct Refused {
    /// The number it was written with.
    pub number: usize,
    /// The refusal.
    pub refusal: Refusal,
}

/// Reason of a refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The error, and its remedy.
    pub reason: String,
    /// Whether a smaller record might be taken.
    pub too_large: bool,
}
