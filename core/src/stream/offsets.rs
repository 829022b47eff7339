//! Which position of a partition may be committed while its records finish in any order.
//!
//! Offsets come in order and with gaps: compaction, aborted transactions and control records take some
//! away. They finish in any order. The safe position is the offset after the last record before which
//! everything has finished (invariant I6).

#[cfg(test)]
mod tests;

use std::collections::VecDeque;

/// Why a record cannot be tracked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OffsetError {
    /// The records of a partition come in order, each once: the log has gone back.
    #[error("offset {offset} came after {last}: the log has gone back")]
    WentBack {
        /// The record's offset.
        offset: i64,
        /// The last one that was started, or the one before the position that reading began at.
        last: i64,
    },
    /// No record has such an offset.
    #[error("offset {0} is negative: no record has it")]
    Negative(i64),
    /// Too many records are open, the finished ones behind the slowest included.
    #[error("{bound} records of the partition are open: the next waits until the first of them has finished")]
    Full {
        /// How many may be.
        bound: usize,
    },
    /// The partition is not, or no longer, assigned.
    #[error("the partition is not assigned")]
    NotAssigned,
}

/// The open records of one partition, from one assignment to its end. After a seek a new one is made.
#[derive(Debug)]
pub struct OffsetTracker {
    /// Records from the safe position on that were started, in order.
    open: VecDeque<Open>,
    open_max: usize,
    last: Option<i64>,
}

#[derive(Debug)]
struct Open {
    offset: i64,
    finished: bool,
}

impl OffsetTracker {
    /// Nothing open, and never more than `open_max`.
    pub fn new(open_max: usize) -> OffsetTracker {
        OffsetTracker {
            open: VecDeque::new(),
            open_max,
            last: None,
        }
    }

    /// The same, of a log that is read from `position` on: no record before it comes.
    pub fn starting_at(open_max: usize, position: i64) -> OffsetTracker {
        OffsetTracker {
            last: Some(position.saturating_sub(1)),
            ..OffsetTracker::new(open_max)
        }
    }

    /// Takes the next record of the partition. A refused one changes nothing.
    pub fn start(&mut self, offset: i64) -> Result<(), OffsetError> {
        if offset < 0 {
            return Err(OffsetError::Negative(offset));
        }
        if let Some(last) = self.last.filter(|last| *last >= offset) {
            return Err(OffsetError::WentBack { offset, last });
        }
        if self.open.len() >= self.open_max {
            return Err(OffsetError::Full { bound: self.open_max });
        }
        self.last = Some(offset);
        self.open.push_back(Open {
            offset,
            finished: false,
        });
        Ok(())
    }

    /// Marks a record as done with, whatever became of it, and returns the new safe position where there is
    /// one: everything before it has finished.
    ///
    /// # Panics
    ///
    /// Where the record is not open. A commit that rests on a wrong account would lose records in silence,
    /// so this ends the thread instead.
    pub fn finish(&mut self, offset: i64) -> Option<i64> {
        let found = self.open.binary_search_by_key(&offset, |open| open.offset);
        let open = found.ok().and_then(|at| self.open.get_mut(at));
        let finishes = open.is_some_and(|open| !std::mem::replace(&mut open.finished, true));
        assert!(finishes, "offset {offset} finished without being open");
        let mut safe = None;
        while let Some(first) = self.open.pop_front_if(|open| open.finished) {
            safe = Some(first.offset + 1);
        }
        safe
    }

    /// How many records are open, the finished ones behind the slowest included.
    pub fn open(&self) -> usize {
        self.open.len()
    }
}
