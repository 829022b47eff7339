//! Records of one partition in flight: their answers come in any order, and are released in order of offset.

use std::collections::VecDeque;

use penstock_core::{Epoch, position_after_going_back};

use crate::chunk::{Answer, Fate};
use crate::source::SeekTo;
use penstock_telemetry::metrics::{Lag, Left};

/// Start of a partition under an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// The client's own start: the committed position, or the start by its settings.
    Anywhere,
    /// The committed position.
    At(i64),
    /// An earlier position, because the log went back: the committed position is beyond it.
    Back(i64),
    /// The beginning of a recreated topic: the committed position may be of the old topic.
    Remade,
}

impl Begin {
    /// Position to seek to.
    pub fn target(self) -> Option<SeekTo> {
        match self {
            Begin::Anywhere => None,
            Begin::At(position) | Begin::Back(position) => Some(SeekTo::Offset(position)),
            Begin::Remade => Some(SeekTo::Beginning),
        }
    }
}

/// A position that goes back without a seek of the consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// The log went back: `from` was expected, and `to` arrived.
    WentBack {
        /// The expected position.
        from: i64,
        /// Offset of the record that arrived.
        to: i64,
    },
    /// The topic was deleted and created again.
    Remade {
        /// The position before, if known.
        from: Option<i64>,
    },
    /// Possibly no reset. A record of another leader follows, and only a seek tells whether the log still has
    /// the record before it.
    Unsure,
}

/// A partition of this consumer.
pub struct Partition {
    /// Its epoch.
    pub epoch: Epoch,
    begin: Begin,
    /// Whether the start of reading is known to belong to this topic.
    pub vouched: bool,
    /// Whether the topic of the committed position was checked before a record came.
    pub looked_at: bool,
    /// Whether the client fetches it, even without records.
    pub fetched: bool,
    /// Consecutive observations of a log that ends before the read position.
    pub beyond: u32,
    /// First record of the epoch; reading restarts here if nothing was ever committed.
    pub first: Option<i64>,
    /// Leader epoch of that record.
    pub first_leader: Option<i32>,
    /// Leader epoch of the last released record.
    pub left_leader: Option<i32>,
    /// Position committed in this epoch.
    pub committed: Option<i64>,
    /// Records released since the last commit.
    left: Left,
    /// Its lag.
    pub lag: Lag,
    /// Committed records since the last observation.
    pub finished: u64,
    slots: VecDeque<Slot>,
}

/// One record.
struct Slot {
    offset: i64,
    bytes: usize,
    /// Bytes of key and value.
    read_bytes: usize,
    leader_epoch: Option<i32>,
    answer: Option<Answer>,
}

/// A record to be released.
pub struct Leaving {
    /// Its offset.
    pub offset: i64,
    /// Its bytes in flight.
    pub bytes: usize,
    /// Its answer.
    pub answer: Answer,
}

impl Partition {
    /// A newly assigned partition without records.
    pub fn new(epoch: Epoch, begin: Begin, lag: Lag) -> Partition {
        Partition {
            epoch,
            begin,
            vouched: false,
            looked_at: false,
            fetched: false,
            beyond: 0,
            first: None,
            first_leader: None,
            left_leader: None,
            committed: None,
            left: Left::default(),
            lag,
            finished: 0,
            slots: VecDeque::new(),
        }
    }

    /// The same partition under a new epoch.
    pub fn again(self, epoch: Epoch, begin: Begin) -> Partition {
        Partition {
            vouched: self.vouched,
            looked_at: self.looked_at,
            fetched: self.fetched,
            ..Partition::new(epoch, begin, self.lag)
        }
    }

    /// Start of its next epoch, from the broker's `committed` position and a possible reset.
    pub fn again_at(&self, committed: Option<i64>, reset: Option<Reset>) -> Begin {
        let own = matches!(self.begin, Begin::Back(_) | Begin::Remade);
        let sought = if (own && self.committed.is_none()) || self.first.is_none() {
            // The broker has no position yet, or nothing was read since.
            self.begin
        } else {
            // If nothing was ever committed, the first record read is the first one not written.
            let position = committed.or(self.committed).or(self.first);
            position.map_or(Begin::Anywhere, Begin::At)
        };
        match (reset, sought) {
            (None | Some(Reset::Unsure), sought) => sought,
            (Some(Reset::Remade { .. }), _) | (Some(_), Begin::Remade) => Begin::Remade,
            (Some(Reset::WentBack { to, .. }), Begin::At(sought) | Begin::Back(sought)) => {
                Begin::Back(position_after_going_back(to, sought))
            }
            (Some(Reset::WentBack { to, .. }), Begin::Anywhere) => Begin::Back(to),
        }
    }

    /// Whether its start is still to be vouched for: by a record, or without one if none comes.
    pub fn is_to_vouch(&self) -> bool {
        !self.vouched && (self.first.is_some() || (self.fetched && !self.looked_at))
    }

    /// Adds a record, whose offset is above all earlier ones.
    pub fn push(&mut self, offset: i64, leader_epoch: Option<i32>, bytes: usize, read_bytes: usize) {
        if self.first.is_none() {
            self.first = Some(offset);
            self.first_leader = leader_epoch;
        }
        self.slots.push_back(Slot {
            offset,
            bytes,
            read_bytes,
            leader_epoch,
            answer: None,
        });
    }

    /// Stores the answer of the record at `offset`.
    pub fn answer(&mut self, offset: i64, answer: Answer) {
        let found = self.slots.binary_search_by_key(&offset, |slot| slot.offset);
        if let Some(slot) = found.ok().and_then(|at| self.slots.get_mut(at)) {
            slot.answer = Some(answer);
        }
    }

    /// Marks released records before `offset` as committed, and returns their counts.
    pub fn committed(&mut self, offset: i64) -> Left {
        self.committed = Some(offset);
        let left = std::mem::take(&mut self.left);
        self.finished += left.records();
        left
    }

    /// The next record to release, if it has an answer.
    pub fn pop(&mut self) -> Option<Leaving> {
        let first = self.slots.pop_front_if(|slot| slot.answer.is_some())?;
        let answer = first.answer?;
        match answer.fate {
            Fate::InferenceResponse => self.left.scored += 1,
            Fate::Tombstone => self.left.tombstones += 1,
            Fate::Dead(reason) => self.left.dead[reason as usize] += 1,
        }
        self.left_leader = first.leader_epoch;
        self.left.bytes_read += first.read_bytes as u64;
        self.left.bytes_written += answer.record.bytes() as u64;
        Some(Leaving {
            offset: first.offset,
            bytes: first.bytes,
            answer,
        })
    }

    /// True without records in flight.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use penstock_telemetry::clock::Clock;
    use penstock_telemetry::metrics::Metrics;

    /// A partition whose records start at 40, unless `begin` says otherwise.
    fn begun(begin: Begin) -> Partition {
        let topic = Metrics::new(Clock::start()).topic("t", None);
        let epoch = penstock_core::Assignment::new(1).begin(0);
        let mut partition = Partition::new(epoch, begin, topic.lag(0));
        partition.push(40, Some(1), 1, 1);
        partition
    }

    const WENT_BACK: Option<Reset> = Some(Reset::WentBack { from: 90, to: 60 });
    const REMADE: Option<Reset> = Some(Reset::Remade { from: None });

    #[test]
    fn what_the_broker_has_counts_until_the_position_goes_back() {
        let partition = begun(Begin::Anywhere);
        assert_eq!(partition.again_at(Some(50), None), Begin::At(50));
        assert_eq!(partition.again_at(None, None), Begin::At(40));
        assert_eq!(partition.again_at(Some(50), WENT_BACK), Begin::Back(50));
        assert_eq!(partition.again_at(Some(80), WENT_BACK), Begin::Back(60));
        assert_eq!(partition.again_at(None, WENT_BACK), Begin::Back(40));
        assert_eq!(partition.again_at(Some(50), REMADE), Begin::Remade);
        assert_eq!(partition.again_at(Some(50), Some(Reset::Unsure)), Begin::At(50));
    }

    #[test]
    fn until_something_is_committed_under_it_an_epoch_begins_where_it_did() {
        let mut partition = begun(Begin::Back(40));
        assert_eq!(partition.again_at(Some(90), None), Begin::Back(40));
        assert_eq!(partition.again_at(Some(90), WENT_BACK), Begin::Back(40));
        partition.committed(45);
        assert_eq!(partition.again_at(Some(45), None), Begin::At(45));
        let mut partition = begun(Begin::Remade);
        assert_eq!(partition.again_at(Some(90), WENT_BACK), Begin::Remade);
        partition.committed(45);
        assert_eq!(partition.again_at(Some(45), None), Begin::At(45));
    }

    #[test]
    fn one_of_which_no_record_comes_is_looked_at_once_and_again_when_one_does() {
        let mut partition = begun(Begin::Anywhere);
        assert!(partition.is_to_vouch());
        partition.first = None;
        assert!(!partition.is_to_vouch());
        partition.fetched = true;
        assert!(partition.is_to_vouch());
        partition.looked_at = true;
        assert!(!partition.is_to_vouch());
        partition.first = Some(40);
        assert!(partition.is_to_vouch());
        partition.vouched = true;
        assert!(!partition.is_to_vouch());
    }

    #[test]
    fn one_of_which_nothing_was_read_stays_where_it_is() {
        for begin in [Begin::Anywhere, Begin::At(7), Begin::Back(7)] {
            let mut partition = begun(begin);
            partition.first = None;
            assert_eq!(partition.again_at(Some(90), None), begin);
        }
    }
}
