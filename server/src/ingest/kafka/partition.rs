//! The records of one partition between reading and leaving: their answers come in any order, they leave in theirs.

use std::collections::VecDeque;

use penstock_core::Epoch;

use super::work::{Answer, Fate};
use penstock_telemetry::metrics::{Lag, Left};

/// A partition of this consumer.
pub struct Partition {
    /// This assignment of it.
    pub epoch: Epoch,
    /// The first record that was read under it: where reading begins anew when nothing was ever committed.
    pub first: Option<i64>,
    /// What was committed under it.
    pub committed: Option<i64>,
    /// What has left since then.
    left: Left,
    /// How far it is behind.
    pub lag: Lag,
    /// Records that were committed since somebody looked.
    pub finished: u64,
    slots: VecDeque<Slot>,
}

/// One record.
struct Slot {
    offset: i64,
    bytes: usize,
    /// Of key and value.
    read_bytes: usize,
    answer: Option<Answer>,
}

/// A record whose turn it is.
pub struct Leaving {
    /// Its offset.
    pub offset: i64,
    /// Its bytes while it was inside.
    pub bytes: usize,
    /// What becomes of it.
    pub answer: Answer,
}

impl Partition {
    /// Nothing inside.
    pub fn new(epoch: Epoch, lag: Lag) -> Partition {
        Partition {
            epoch,
            first: None,
            committed: None,
            left: Left::default(),
            lag,
            finished: 0,
            slots: VecDeque::new(),
        }
    }

    /// A record that was read. Its offset is above all before it.
    pub fn push(&mut self, offset: i64, bytes: usize, read_bytes: usize) {
        self.first.get_or_insert(offset);
        self.slots.push_back(Slot {
            offset,
            bytes,
            read_bytes,
            answer: None,
        });
    }

    /// What becomes of the record at `offset`.
    pub fn answer(&mut self, offset: i64, answer: Answer) {
        let found = self.slots.binary_search_by_key(&offset, |slot| slot.offset);
        if let Some(slot) = found.ok().and_then(|at| self.slots.get_mut(at)) {
            slot.answer = Some(answer);
        }
    }

    /// The broker has what left before `offset`. Returns what that was.
    pub fn committed(&mut self, offset: i64) -> Left {
        self.committed = Some(offset);
        let left = std::mem::take(&mut self.left);
        self.finished += left.records();
        left
    }

    /// The next record to leave, when nothing before it is without an answer.
    pub fn pop(&mut self) -> Option<Leaving> {
        let first = self.slots.pop_front_if(|slot| slot.answer.is_some())?;
        let answer = first.answer?;
        match answer.fate {
            Fate::InferenceResponse => self.left.scored += 1,
            Fate::Tombstone => self.left.tombstones += 1,
            Fate::Dead(reason) => self.left.dead[reason as usize] += 1,
        }
        self.left.bytes_read += first.read_bytes as u64;
        self.left.bytes_written += answer.record.bytes() as u64;
        Some(Leaving {
            offset: first.offset,
            bytes: first.bytes,
            answer,
        })
    }

    /// True when nothing is inside.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }
}
